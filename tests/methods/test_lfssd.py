from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.lfssd import LFSSD
from expunge.tasks.base import Split
from expunge.testing.method_contract import vector_case
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


class Diagonal(nn.Module):
    """Logits w * x, so ||f(x)||^2 has the gradient 2 w x^2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x


def request() -> Request:
    x = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    train = examples_from_dataset(torch.utils.data.TensorDataset(x, torch.zeros(3, dtype=torch.int64)), 2)
    return Request(Split(train, torch.tensor([0])), seed=0, numerics=CPU)


@pytest.mark.parametrize("squared", [True, False])
def test_two_parameters_by_hand(squared: bool) -> None:
    # One axis an example: I_F = (18, 0) or (3, 0), I_D = (6, ...) or (1, ...). The ratio is 3 either way.
    outcome = LFSSD(alpha=2.0, batch_size=1, squared=squared)(Diagonal(), request())
    assert outcome.model.w.tolist() == pytest.approx([1 / 3, 2.0])
    untouched = LFSSD(alpha=3.5, batch_size=1, squared=squared)(Diagonal(), request())
    assert untouched.model.w.tolist() == [1.0, 2.0]
    assert outcome.cost.sample_gradients == 4


@pytest.mark.parametrize("squared", [True, False])
def test_no_label_is_read(squared: bool) -> None:
    case = vector_case()
    other = Split(case.split.train.relabel((case.split.train.labels + 1) % 4), case.split.forget_positions)
    first, second = (
        LFSSD(alpha=1.5, batch_size=16, squared=squared)(
            case.fresh(), Request(split, seed=0, numerics=case.numerics)
        ).model.state_dict()
        for split in (case.split, other)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], tensor) for name, tensor in case.model.state_dict().items())


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"dampening": -1.0}, {"batch_size": 0}])
def test_settings(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InvalidInput, match=f"{name} must be positive and finite, got"):
        LFSSD(**wrong)
