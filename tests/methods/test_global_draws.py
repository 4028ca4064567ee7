"""Networks that draw from torch's global generator: the request's seed decides, the caller's state stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.api import unlearn
from expunge.data.examples import Examples
from expunge.data.joined import in_memory
from expunge.methods.finetune import FineTune
from expunge.methods.request import Request


def rows() -> Examples:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    return in_memory(torch.randn(60, 6, generator=draw) + 2 * nn.functional.one_hot(labels, 6), labels, 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def weights(seed: int, method: str = "finetune") -> torch.Tensor:
    model = network()
    torch.rand(torch.randint(1, 50, (1,)).item())  # type: ignore[arg-type]  # wherever the caller's generator stands
    found = unlearn(
        model, rows(), forget=torch.tensor([1, 2, 3]), method=method, seed=seed, device="cpu"
    ).model
    return torch.cat([parameter.detach().flatten() for parameter in found.parameters()])


@pytest.mark.parametrize("method", ["finetune", "rem_without_redirection"])
def test_the_seed_decides_what_dropout_drops(method: str) -> None:
    torch.manual_seed(1)
    first = weights(0, method)
    torch.manual_seed(2)
    assert torch.equal(first, weights(0, method))
    assert not torch.equal(first, weights(1, method))


def test_the_callers_generator_is_left_as_it_was() -> None:
    model = network()
    before = torch.get_rng_state()
    unlearn(model, rows(), forget=torch.tensor([1]), method="finetune", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_leaves_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FineTune, model: nn.Module, request: Request) -> nn.Module:
        torch.rand(3)
        raise RuntimeError("stop")

    monkeypatch.setattr(FineTune, "unlearn", broken)
    model = network()
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"):
        unlearn(model, rows(), forget=torch.tensor([1]), method="finetune", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_on_an_accelerator() -> None:
    def on_device() -> torch.Tensor:
        found = unlearn(
            network(), rows(), forget=torch.tensor([1, 2, 3]), method="finetune", device="cuda"
        ).model
        return torch.cat([parameter.detach().flatten().cpu() for parameter in found.parameters()])

    torch.cuda.manual_seed(1)
    first = on_device()
    torch.cuda.manual_seed(2)
    before = torch.cuda.get_rng_state()
    assert torch.equal(first, on_device())
    assert torch.equal(torch.cuda.get_rng_state(), before)
