"""Calibration: whether a probability of p is right in a share p of the cases."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.errors import InvalidInput
from expunge.metrics.attack_scores import checked_log_probabilities, loss
from expunge.metrics.base import Evaluated, Metric


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """ECE = sum_b |B_b| / N |acc(B_b) - conf(B_b)|, in [0, 1].

    B_b holds the examples whose largest probability lies in ((b - 1) / bins, b / bins]; the right edge
    belongs to the bin, so that a confidence of exactly 1 is counted.

    Args:
        logits: (N, C).
        labels: int64 (N,), in 0..C-1.
        bins: number of bins of equal width, at least 1.

    Raises:
        InvalidInput: no bin; as for :func:`~expunge.metrics.attack_scores.loss`.
    """
    if bins < 1:
        raise InvalidInput(f"at least one bin is needed, got {bins}")
    log_p = checked_log_probabilities(logits, labels)
    confidence, predicted = log_p.exp().max(1)
    right = (predicted == labels).double()
    edges = torch.arange(1, bins, dtype=torch.float64, device=log_p.device) / bins
    # right=False puts a value that equals an edge into the bin on its left
    inside = torch.bucketize(confidence, edges, right=False)
    gaps = torch.zeros(bins, dtype=torch.float64, device=log_p.device)
    gaps.index_add_(0, inside, right - confidence)
    return float(gaps.abs().sum() / len(labels))


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """NLL = -mean log p_y, in nats; arguments and errors are those of :func:`~expunge.metrics.attack_scores.loss`."""
    return float(loss(logits, labels).mean())


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Mean of sum_c (p_c - [c = y])^2, in [0, 2].

    Arguments and errors are those of :func:`~expunge.metrics.attack_scores.loss`.
    """
    p = checked_log_probabilities(logits, labels).exp()
    return float((p - F.one_hot(labels, p.shape[1])).square().sum(1).mean())


class ECE(Metric):
    """Expected calibration error on the clean test set, 15 bins of equal width."""

    name = "ece"
    better = "lower"
    source = "Guo et al., ICML 2017"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the error."""
        return expected_calibration_error(*evaluated.test)


class NLL(Metric):
    """Negative log-likelihood of the true labels on the clean test set, in nats."""

    name = "nll"
    unit = "nats"
    better = "lower"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the mean."""
        return negative_log_likelihood(*evaluated.test)


class Brier(Metric):
    """Brier score on the clean test set, in [0, 2]."""

    name = "brier"
    unit = "squared probability"
    better = "lower"
    source = "Brier, Monthly Weather Review 1950"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the mean."""
        return brier_score(*evaluated.test)
