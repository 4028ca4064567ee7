from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from trained_models import CPU, Trained

from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.residual_knowledge import ResidualKnowledge, recognised, residual_ratio


class Line(nn.Module):
    """Class 1 where the input exceeds a threshold; NaN where it exceeds ``broken``."""

    def __init__(self, threshold: float, broken: float = math.inf) -> None:
        super().__init__()
        self.threshold, self.broken = threshold, broken

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.cat([torch.zeros_like(x), x - self.threshold], 1)
        return logits.masked_fill(x > self.broken, math.nan)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_counts_follow_the_normal_distribution() -> None:
    given = in_memory(torch.tensor([[0.0], [0.5], [0.5]]), torch.tensor([1, 1, 0]), 2)
    first, second = recognised(
        [Line(0.0), Line(1.0)], given, CPU, tau=0.5, draws=4000, generator=draw(), batch_size=2
    )
    assert (first / 4000).tolist() == pytest.approx([0.5, 0.8413, 0.1587], abs=0.02)
    assert (second / 4000).tolist() == pytest.approx([0.0228, 0.1587, 0.8413], abs=0.02)


def test_models_see_the_same_perturbations() -> None:
    given = in_memory(torch.randn(6, 1), torch.arange(6) % 2, 2)
    first, second = recognised([Line(0.1), Line(0.1)], given, CPU, tau=1.0, draws=30, generator=draw())
    assert torch.equal(first, second)
    assert 0 < int(first.sum()) < 180


def test_no_perturbation_and_answers_that_are_nan() -> None:
    given = in_memory(torch.tensor([[2.0], [0.5]]), torch.tensor([1, 1]), 2)
    counts = recognised([Line(0.0), Line(0.0, broken=1.0)], given, CPU, tau=0.0, draws=3, generator=draw())
    assert counts.tolist() == [[3, 3], [0, 3]]


def test_ratio_by_hand() -> None:
    assert residual_ratio(torch.tensor([4, 6, 9]), torch.tensor([8, 2, 0])) == ((0.5 + 3) / 2, 1)
    assert residual_ratio(torch.tensor([5, 5]), torch.tensor([5, 5])) == (1, 0)


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="recognises no perturbation of any"):
        residual_ratio(torch.tensor([4]), torch.tensor([0]))
    with pytest.raises(InvalidInput, match=r"shapes \(2,\) and \(1,\)"):
        residual_ratio(torch.tensor([4, 1]), torch.tensor([1]))
    given = in_memory(torch.zeros(1, 1), torch.tensor([1]), 2)
    for examples, tau, draws in (
        (given.select(torch.arange(0)), 0.1, 1),
        (given, -0.1, 1),
        (given, math.nan, 1),
        (given, 0.1, 0),
    ):
        with pytest.raises(InvalidInput, match="one draw and a finite tau of 0 or more"):
            recognised([Line(0.0)], examples, CPU, tau=tau, draws=draws, generator=draw())


def test_of_models(forgotten_samples: Trained, forgotten_class: Trained, margin: Callable[..., None]) -> None:
    metric = ResidualKnowledge(draws=5, tau=0.5)
    retrained = forgotten_samples.of(forgotten_samples.retrained)
    assert metric(retrained) == 1
    values = metric.values(forgotten_samples.of(forgotten_samples.original))
    margin("residual knowledge", values["residual_knowledge"].value, above=0.9)
    assert values["residual_knowledge_left_out"].value >= 0
    margin("left out", values["residual_knowledge_left_out"].value, below=0.2)
    assert metric(retrained) == metric(retrained)
    # a class that was never seen is never answered
    with pytest.raises(UNDEFINED, match="recognises no perturbation of any"):
        metric(forgotten_class.of(forgotten_class.original))
    with pytest.raises(UNDEFINED, match="retrained model, which is not given"):
        metric(forgotten_samples.alone(forgotten_samples.original))
