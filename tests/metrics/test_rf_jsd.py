from __future__ import annotations

import math

import pytest
import torch
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import NotDefined
from expunge.metrics.compared_predictions import RFJSD, rf_jsd


def test_agrees_with_a_plain_loop() -> None:
    forget, test = torch.randn(12, 4), torch.randn(20, 4)
    of_forget, of_test = torch.arange(12) % 3, torch.arange(20) % 4  # class 3 is not forgotten
    values = []
    for label in (0, 1, 2):
        means = []
        for logits, labels in ((forget, of_forget), (test, of_test)):
            rows = [row.double().softmax(0) for row, one in zip(logits, labels, strict=True) if one == label]
            means.append((sum(rows) / len(rows)).tolist())
        js = 0.0
        for p, q in zip(*means, strict=True):
            js += (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q))) / 2
        values.append(js)
    assert rf_jsd(forget, of_forget, test, of_test) == pytest.approx(sum(values) / 3)


def test_closed_forms() -> None:
    labels = torch.tensor([0, 0])
    left, right = torch.tensor([[900.0, 0], [900, 0]]), torch.tensor([[0.0, 900], [0, 900]])
    assert rf_jsd(left, labels, right, labels) == pytest.approx(math.log(2))
    assert rf_jsd(left, labels, left, labels) == 0
    # the mean of the predictions is compared, not the predictions
    mixed = torch.tensor([[900.0, 0], [0, 900]])
    assert rf_jsd(mixed, labels, torch.zeros(2, 2), labels) == pytest.approx(0)


def test_refusals() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(InvalidInput, match="no class in common"):
        rf_jsd(logits, torch.tensor([0, 0]), logits, torch.tensor([1, 2]))
    with pytest.raises(InvalidInput, match="models of one number of classes are expected, got 3 and 4"):
        rf_jsd(logits, torch.tensor([0, 0]), torch.zeros(2, 4), torch.tensor([0, 0]))


def test_of_models(forgotten_samples: Trained, forgotten_class: Trained) -> None:
    value = RFJSD()(forgotten_samples.of(forgotten_samples.retrained))
    assert 0 <= value < 0.1
    with pytest.raises(NotDefined, match="whole classes are forgotten"):
        RFJSD()(forgotten_class.of(forgotten_class.retrained))
    with pytest.raises(NotDefined, match="original model, which is not given"):
        RFJSD()(forgotten_samples.alone(forgotten_samples.retrained))
