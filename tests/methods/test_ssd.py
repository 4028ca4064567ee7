from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.ssd import SSD
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


class TwoParameters(nn.Module):
    """Logits (a x1 + b x2, 0): at a = b = 0 both classes have probability a half."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = (self.a * x[:, 0] + self.b * x[:, 1]) + (self.scale - 4.0) * x[:, 2]
        return torch.stack((first, torch.zeros_like(first)), dim=1)


def request() -> Request:
    """Label 0, so d ce / d first = -1/2; batches of one. Forget: the first example."""
    x = torch.tensor([[0.0, 2.0, 6.0], [2.0, 4.0, 0.0], [2.0, 4.0, 0.0]])
    train = examples_from_dataset(torch.utils.data.TensorDataset(x, torch.zeros(3, dtype=torch.int64)), 2)
    return Request(Split(train, torch.tensor([0])), seed=0, numerics=CPU)


@pytest.mark.parametrize(("alpha", "dampening"), [(2.0, 1.0), (2.0, 0.5), (4.0, 1.0), (2.9, 9.0)])
def test_two_parameters_by_hand(alpha: float, dampening: float) -> None:
    # By (x / 2)^2, I_F: a 0, b 1, scale 9; I_D: a 2/3, b (1 + 4 + 4) / 3 = 3, scale 9 / 3 = 3.
    # Only scale has I_F / I_D = 3, the others 0 and 1/3.
    outcome = SSD(alpha=alpha, dampening=dampening, batch_size=1)(TwoParameters(), request())
    expected = 4.0 * min(dampening / 3, 1.0) if alpha < 3 else 4.0
    assert float(outcome.model.scale.detach()) == pytest.approx(expected)
    assert (outcome.model.a.item(), outcome.model.b.item()) == (0.0, 0.0)
    assert outcome.log[-1]["share"] == pytest.approx(1 / 3 if alpha < 3 else 0.0)
    assert outcome.cost.sample_gradients == 1 + 3


def test_frozen_parameters_stay() -> None:
    model = TwoParameters()
    model.scale.requires_grad_(False)
    outcome = SSD(alpha=2.0, batch_size=1)(model, request())
    assert float(outcome.model.scale) == 4.0


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"dampening": -1.0}, {"batch_size": 0}])
def test_settings(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InvalidInput, match=f"{name} must be positive and finite, got"):
        SSD(**wrong)


def test_no_forget_set() -> None:
    given = Request(Split(request()._split.train, torch.empty(0, dtype=torch.int64)), seed=0, numerics=CPU)
    with pytest.raises(InvalidInput, match="importances are not defined over no examples"):
        SSD()(TwoParameters(), given)
