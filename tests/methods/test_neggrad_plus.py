from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.neggrad_plus import NegGradPlus
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)
FORGET, RETAIN = torch.arange(5), torch.arange(5, 24)


def examples() -> Examples:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=draw)
    return examples_from_dataset(torch.utils.data.TensorDataset(x, torch.arange(24) % 3), 3)


def request(positions: Tensor = FORGET) -> Request:
    return Request(Split(examples(), positions), seed=0, numerics=CPU)


def slope(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return ((x @ w.T).softmax(1) - torch.eye(3)[y]).T @ x / len(x)


def method(**settings: float) -> NegGradPlus:
    common = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 32, "schedule": "constant"}
    return NegGradPlus.configured({**common, **settings})  # type: ignore[return-value]


@pytest.mark.parametrize("beta", [0.95, 0.6])
def test_steps_are_the_hand_formula(beta: float) -> None:
    """Both sets fit in a batch, so an epoch is one step on both of them."""
    model = nn.Linear(4, 3, bias=False)
    outcome = method(beta=beta, epochs=3)(model, request())
    w = model.weight.detach()
    lost, kept = (next(examples().select(p).batches(32)) for p in (FORGET, RETAIN))
    for _ in range(3):
        w = w - 0.1 * (beta * slope(w, kept.x, kept.y) - (1 - beta) * slope(w, lost.x, lost.y))
    torch.testing.assert_close(outcome.model.weight.detach(), w)
    assert outcome.cost.sample_gradients == 3 * 24


def test_every_step_has_a_forget_batch_and_the_forget_set_is_passed_over_evenly() -> None:
    outcome = method(beta=0.9, epochs=2, batch_size=4)(nn.Linear(4, 3), request())
    # 19 retained examples are 5 steps; the 5 forgotten ones are one batch, since 4 would leave one alone.
    assert outcome.cost.sample_gradients == 2 * 19 + 2 * 5 * 5
    counted = torch.zeros(24)
    source = method(batch_size=2)._endless(request().grant("neggrad_plus", NegGradPlus.needs))
    for _ in range(10):
        counted[next(source).index] += 1
    assert counted[FORGET].tolist() == [5] * 5
    assert counted[RETAIN].sum() == 0


def test_a_lone_forgotten_example_leaves_running_statistics_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    result = method(beta=0.9, epochs=3)(model, request(torch.tensor([2]))).model
    assert int(result[1].num_batches_tracked) == 3


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, float("nan")])
def test_beta_outside_its_range_is_refused(beta: float) -> None:
    with pytest.raises(InvalidInput, match=r"beta must lie in \(0, 1\)"):
        NegGradPlus(beta=beta)


def test_no_epochs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="epochs must be positive"):
        NegGradPlus(epochs=0)
