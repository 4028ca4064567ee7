from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED, measure
from expunge.metrics.compared_predictions import ActivationDistance, activation_distance


def test_agrees_with_a_plain_loop() -> None:
    first, second = torch.randn(7, 5), 3 * torch.randn(7, 5)
    total = 0.0
    for a, b in zip(first.double(), second.double(), strict=True):
        p = [math.exp(x) / sum(math.exp(y) for y in a) for x in a]
        q = [math.exp(x) / sum(math.exp(y) for y in b) for x in b]
        total += math.sqrt(sum((x - y) ** 2 for x, y in zip(p, q, strict=True)))
    assert activation_distance(first, second) == pytest.approx(total / 7)


def test_closed_forms() -> None:
    sure, other = torch.tensor([[900.0, 0.0, 0.0]]), torch.tensor([[0.0, 900.0, 0.0]])
    assert activation_distance(sure, other) == pytest.approx(math.sqrt(2))
    assert activation_distance(sure, sure) == 0
    # one constant added to the logits changes no probability
    assert activation_distance(other, other + 5) == pytest.approx(0)


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="logits of two models on the same examples"):
        activation_distance(torch.zeros(2, 3), torch.zeros(3, 3))


def test_of_models(forgotten_class: Trained, diverged: nn.Module, margin: Callable[..., None]) -> None:
    metric = ActivationDistance()
    same = metric.values(forgotten_class.of(forgotten_class.retrained))
    assert {name: value.value for name, value in same.items()} == {
        "activation_distance": 0,
        "activation_distance_retain": 0,
    }
    before = metric.values(forgotten_class.of(forgotten_class.original))
    margin("distance", before["activation_distance"].value, above=0.8)
    margin("on the retain set", before["activation_distance_retain"].value, below=0.2)
    with pytest.raises(UNDEFINED, match="NaN or inf"):
        metric(forgotten_class.of(diverged))
    (reason,) = measure(metric, forgotten_class.alone(forgotten_class.original))
    assert "retrained model, which is not given" in reason.because
