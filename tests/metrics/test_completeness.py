from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.compared_predictions import Completeness, agreement


def test_agreement_by_hand() -> None:
    first = torch.tensor([[2.0, 1], [1, 2], [5, 0], [0, 1]])
    second = torch.tensor([[9.0, 1], [3, 2], [1, 0], [0, 7]])
    assert agreement(first, second) == 0.75


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="at least one example"):
        agreement(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(InvalidInput, match="on the same examples"):
        agreement(torch.zeros(2, 2), torch.zeros(2, 3))


def test_of_models(forgotten_class: Trained, diverged: nn.Module, margin: Callable[..., None]) -> None:
    metric = Completeness()
    same = metric.values(forgotten_class.of(forgotten_class.retrained))
    assert {name: value.value for name, value in same.items()} == {
        "completeness": 1,
        "completeness_retain": 1,
        "completeness_test": 1,
    }
    before = {
        name: value.value
        for name, value in metric.values(forgotten_class.of(forgotten_class.original)).items()
    }
    margin("completeness", before["completeness"], below=0.1)
    margin("on the retain set", before["completeness_retain"], above=0.95)
    # a quarter of the test images is of the forgotten class
    margin("on the test set", before["completeness_test"], above=0.7, below=0.8)
    with pytest.raises(UNDEFINED, match="NaN"):
        metric(forgotten_class.of(diverged))
