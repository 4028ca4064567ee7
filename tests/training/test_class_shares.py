from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.joined import TensorSource
from expunge.training.class_shares import bring_back_lost_classes, offsets
from expunge.training.numerics import Numerics

CPU = Numerics()


def blurred(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of three classes, of which the last two are hard to tell apart."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(600) % 3
    centres = torch.tensor([[4.0, 0.0], [0.0, 2.0], [0.0, 2.6]])
    return centres[labels] + torch.randn(600, 2, generator=draw), labels


class Net(nn.Module):
    """Logits z[c] = -|x - centre[c]|^2 / 2 up to a constant, and an unfair bias against class 2."""

    def __init__(self, bias: bool = True, unfair: float = 1.5) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3, bias=bias)
        with torch.no_grad():
            centres = torch.tensor([[4.0, 0.0], [0.0, 2.0], [0.0, 2.6]])
            self.head.weight.copy_(centres)
            if bias:
                self.head.bias.copy_(-centres.square().sum(1) / 2)
                self.head.bias[2] -= unfair

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x)
        return logits


class Doubled(Net):
    """What the last layer puts out is not what the network returns."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def examples() -> Examples:
    x, y = blurred()
    return Examples.all_of(TensorSource(x), y, 3)


def bring_back(model: nn.Module, given: Examples | None = None) -> list[int]:
    return bring_back_lost_classes(
        model, examples() if given is None else given, CPU, torch.Generator().manual_seed(1)
    )


def share(model: nn.Module, label: int) -> float:
    x, _ = blurred()
    with torch.no_grad():
        return float((model(x).argmax(1) == label).float().mean())


def test_mean_probabilities_become_the_shares() -> None:
    draw = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(500, 4, generator=draw), torch.arange(500) % 10 % 4
    b = offsets(logits, labels)
    shares = torch.bincount(labels, minlength=4) / 500
    torch.testing.assert_close((logits + b).softmax(1).mean(0), shares, atol=1e-4, rtol=0)
    # A class without a label is not asked for, and a change is bounded.
    few = offsets(logits + torch.tensor([0.0, 0.0, 0.0, -50.0]), torch.arange(500) % 3)
    assert float(few[3]) == 0
    assert float(offsets(logits + torch.tensor([0.0, 0.0, 0.0, -50.0]), labels).abs().max()) == 2.0


def test_a_lost_class_is_given_again() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    assert share(model, 2) < 0.1
    assert bring_back(model) == [2]
    assert 0.25 < share(model, 2) < 0.42
    assert torch.equal(model.head.weight, before["head.weight"])


def test_while_none_is_lost_nothing_is_changed() -> None:
    model = Net(unfair=0.2)
    before = copy.deepcopy(model.state_dict())
    assert bring_back(model) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_set_stays() -> None:
    frozen = Net()
    frozen.head.bias.requires_grad_(False)
    for model in (Net(bias=False), frozen, Doubled(), nn.Sequential(nn.Flatten(), Net(), nn.Identity())[:1]):
        before = copy.deepcopy(model.state_dict())
        assert bring_back(model) == []
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])
    assert bring_back(Net(), examples().select(torch.zeros(0, dtype=torch.int64))) == []
