from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.calibration import (
    ECE,
    NLL,
    Brier,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)


def logits_of(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def loop(logits: Tensor, labels: Tensor, bins: int) -> float:
    total = 0.0
    p = logits.double().softmax(1)
    for number in range(bins):
        inside = [i for i in range(len(p)) if number / bins < float(p[i].max()) <= (number + 1) / bins]
        if inside:
            right = sum(int(p[i].argmax()) == int(labels[i]) for i in inside) / len(inside)
            sure = sum(float(p[i].max()) for i in inside) / len(inside)
            total += len(inside) / len(p) * abs(right - sure)
    return total


@pytest.mark.parametrize("bins", [1, 2, 15, 100])
def test_ece_agrees_with_a_plain_loop(bins: int) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(200, 5, generator=draw), torch.randint(0, 5, (200,), generator=draw)
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(loop(logits, labels, bins))


def test_a_confidence_of_one_is_counted() -> None:
    sure = torch.tensor([[900.0, 0], [900, 0], [900, 0], [900, 0]])
    assert expected_calibration_error(sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.25)
    assert expected_calibration_error(sure, torch.tensor([1, 1, 1, 1])) == pytest.approx(1)
    assert expected_calibration_error(sure, torch.tensor([0, 0, 0, 0])) == 0


def test_an_edge_belongs_to_the_bin_on_its_left() -> None:
    # 1/2 shares a bin of two with nothing above it: |1 - 0.5| / 2 + |0 - 0.75| / 2, not |0.5 - 0.625|
    logits = torch.stack([torch.zeros(2).double(), logits_of([[0.75, 0.25]])[0]])
    assert expected_calibration_error(logits, torch.tensor([0, 1]), bins=2) == pytest.approx(0.625)


def test_right_in_the_share_it_says_is_calibrated() -> None:
    logits = logits_of([[0.75, 0.25]] * 4)
    assert expected_calibration_error(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(0)


def test_likelihood_and_brier_by_hand() -> None:
    logits, labels = logits_of([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), torch.tensor([1, 2])
    assert negative_log_likelihood(logits, labels) == pytest.approx(-(math.log(0.3) + math.log(0.8)) / 2)
    by_hand = (0.25 + 0.49 + 0.04 + 0.01 + 0.01 + 0.04) / 2
    assert brier_score(logits, labels) == pytest.approx(by_hand)
    sure = torch.tensor([[900.0, 0]])
    assert brier_score(sure, torch.tensor([1])) == pytest.approx(2)
    assert negative_log_likelihood(sure, torch.tensor([1])) == pytest.approx(900)


@pytest.mark.parametrize("function", [expected_calibration_error, negative_log_likelihood, brier_score])
def test_refusals(function: object) -> None:
    assert callable(function)
    logits = torch.zeros(2, 3)
    with pytest.raises(InvalidInput, match="at least one example"):
        function(logits[:0], torch.zeros(0, dtype=torch.int64))
    with pytest.raises(
        InvalidInput, match=r"labels must lie in 0\.\.2, the classes of the logits, got 0\.\.3"
    ):
        function(logits, torch.tensor([0, 3]))
    with pytest.raises(InvalidInput, match=r"labels must be int64 \(2,\), one for each row .* \(1,\)"):
        function(logits, torch.tensor([0]))
    with pytest.raises(InvalidInput, match="NaN or inf"):
        function(logits / 0, torch.tensor([0, 1]))
    with pytest.raises(InvalidInput, match="at least one bin is needed, got 0"):
        expected_calibration_error(logits, torch.tensor([0, 1]), 0)


def test_of_models(forgotten_class: Trained, diverged: nn.Module) -> None:
    evaluated = forgotten_class.alone(forgotten_class.original)
    logits, labels = evaluated.test
    assert ECE()(evaluated) == expected_calibration_error(logits, labels, 15)
    assert NLL()(evaluated) == pytest.approx(float(nn.functional.cross_entropy(logits.double(), labels)))
    assert 0 < Brier()(evaluated) < 2
    for metric in (ECE(), NLL(), Brier()):
        with pytest.raises(UNDEFINED, match="NaN or inf"):
            metric(forgotten_class.alone(diverged))
