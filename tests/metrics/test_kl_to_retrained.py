from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.compared_predictions import KLToRetrained, kl_divergence


def test_agrees_with_a_plain_loop_and_puts_the_reference_first() -> None:
    reference, logits = torch.randn(6, 4), 2 * torch.randn(6, 4)
    total = 0.0
    for r, u in zip(reference.double().softmax(1).tolist(), logits.double().softmax(1).tolist(), strict=True):
        total += sum(p * math.log(p / q) for p, q in zip(r, u, strict=True))
    assert kl_divergence(reference, logits) == pytest.approx(total / 6)
    assert kl_divergence(logits, reference) != pytest.approx(total / 6)


def test_certain_reference_gives_the_surprise() -> None:
    certain, spread = torch.tensor([[900.0, 0, 0]]), torch.zeros(1, 3)
    assert kl_divergence(certain, spread) == pytest.approx(math.log(3))
    assert kl_divergence(spread, certain) == pytest.approx(600 - math.log(3))


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="on the same examples"):
        kl_divergence(torch.zeros(2, 2), torch.zeros(1, 2))


def test_of_models(forgotten_class: Trained, diverged: nn.Module) -> None:
    metric = KLToRetrained()
    values = metric.values(forgotten_class.of(forgotten_class.original))
    assert values["kl_to_retrained"].value > 1 > values["kl_to_retrained_retain"].value > 0
    assert metric(forgotten_class.of(forgotten_class.retrained)) == 0
    with pytest.raises(UNDEFINED, match="NaN"):
        metric(forgotten_class.of(diverged))
