from __future__ import annotations

import math

import pytest
import torch

from expunge.errors import InvalidInput
from expunge.metrics.distribution import divergence, log_probabilities, paired_log_probabilities


def test_log_probabilities_are_double_and_sum_to_one() -> None:
    log_p = log_probabilities(torch.tensor([[0.0, math.log(3.0)], [500.0, -500.0]]))
    assert log_p.dtype == torch.float64
    assert log_p[0].exp().tolist() == pytest.approx([0.25, 0.75])
    assert log_p[1].tolist() == [0.0, -1000.0]


def test_divergence_by_hand() -> None:
    log_p, log_q = torch.tensor([[0.5, 0.5]]).double().log(), torch.tensor([[0.25, 0.75]]).double().log()
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(log_p, log_q).tolist() == pytest.approx([by_hand])


def test_a_class_without_probability_adds_nothing() -> None:
    certain = torch.tensor([[1.0, 0.0]]).double().log()
    assert divergence(certain, certain).tolist() == [0.0]
    assert divergence(certain, torch.tensor([[0.5, 0.5]]).double().log()).tolist() == [math.log(2)]


@pytest.mark.parametrize("shape", [(0, 3), (4, 1), (4,), (2, 3, 4)])
def test_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"logits \(N, C\) of at least one example and two classes"):
        log_probabilities(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = torch.zeros(3, 2)
    logits[1, 0] = value
    with pytest.raises(InvalidInput, match="logits of 1 of 3 examples hold NaN or inf"):
        log_probabilities(logits)


def test_a_pair_has_one_shape() -> None:
    with pytest.raises(InvalidInput, match=r"shapes \(3, 2\) and \(3, 4\)"):
        paired_log_probabilities(torch.zeros(3, 2), torch.zeros(3, 4))
