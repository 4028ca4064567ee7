"""The probability that a given label is wrong, and how many are, by a model of how labels come to be wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TEMPERATURES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
_ROUNDS = 100
_START = 0.1
"""Share of wrong labels that the search begins from."""
_LEAST = 1e-6
_ENTRIES = 20_000_000
"""Probabilities that the matrix is fitted to at most: a draw of the examples, so that time and memory stay bounded."""
_STILL = 1e-7
"""Gain of the mean log-likelihood below which the search has ended."""


@dataclass(frozen=True)
class NoiseModel:
    """What fits the given labels best.

    Attributes:
        wrong: float64 (N,), the probability that an example's given label is wrong.
        best: int64 (N,), its most probable true label.
        matrix: float64 (C, C), the probability that an example of true class z (row) is given label y.
        temperature: of the network's probabilities.
    """

    wrong: Tensor
    best: Tensor
    matrix: Tensor
    temperature: float

    @property
    def count(self) -> float:
        """The expected number of wrong labels."""
        return float(self.wrong.sum())


def noise_model(probabilities: Tensor, labels: Tensor) -> NoiseModel:
    """Fit the temperature T and the matrix M that make the given labels most probable.

    With q_i ~ p_i^(1 / T), an example's true class z_i is drawn from q_i and its given label from row z_i of M:

      P(z_i = z | y_i) = q_i[z] M[z, y_i] / e_i,  e_i = sum over z of q_i[z] M[z, y_i].

    M is found by expectation and maximisation from 0.9 on its diagonal, T by the largest sum of log e_i among a few.
    A network that doubts is told from labels that are wrong by that: doubt spreads over classes as the network's
    probabilities say, errors follow M. Given label y of class z where no example has class z counts as right.

    Symbols: p -> ``probabilities``, y -> ``labels``.

    Args:
        probabilities: float (N, C), rows of sum 1, of a network that has not memorised the labels.
        labels: int64 (N,), the given labels.

    Source: Dawid and Skene, Applied Statistics 1979, with one annotator and the network's probabilities as prior.
    """
    p, y = probabilities.double().cpu(), labels.cpu()
    log_p = p.clamp(min=_LEAST).log()
    draw = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[
        : max(1, _ENTRIES // p.shape[1])
    ]
    fits = [
        (*_fitted((log_p[draw] / temperature).softmax(1), y[draw]), temperature)
        for temperature in _TEMPERATURES
    ]
    _, matrix, temperature = max(fits, key=lambda fit: fit[0])
    posterior, _ = _posterior((log_p / temperature).softmax(1), y, matrix)
    wrong = 1 - posterior.gather(1, y[:, None]).squeeze(1)
    return NoiseModel(wrong.clamp(0, 1), posterior.argmax(1), matrix, temperature)


def _fitted(q: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Return the mean log-likelihood and M, for probabilities q at one temperature."""
    n_classes = q.shape[1]
    matrix = torch.full((n_classes, n_classes), _START / max(1, n_classes - 1), dtype=q.dtype)
    matrix.fill_diagonal_(1 - _START)
    before = -math.inf
    for _ in range(_ROUNDS):
        posterior, evidence = _posterior(q, y, matrix)
        likelihood = float(evidence.log().mean())
        if likelihood - before < _STILL:
            break
        before = likelihood
        counts = torch.zeros_like(matrix).index_add_(1, y, posterior.T)
        matrix = (counts / counts.sum(1, keepdim=True).clamp(min=_LEAST)).clamp(min=_LEAST)
    return likelihood, matrix


def _posterior(q: Tensor, y: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return P(z | y) (N, C) and e (N, 1)."""
    joint = q * matrix[:, y].T
    evidence = joint.sum(1, keepdim=True)
    return joint / evidence, evidence


def confident_count(probabilities: Tensor, labels: Tensor) -> float:
    """Return the number of wrong labels by confident learning.

    An example counts as class j if p_ij >= t_j = mean of p_kj over {k : y_k = j}, the largest such p_ij deciding. The
    counts of each given label, scaled to its examples, say how many of these are of another class.

    Args:
        probabilities: float (N, C).
        labels: int64 (N,), the given labels.

    Source: Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021, section 3.1.
    """
    p, y = probabilities.double().cpu(), labels.cpu()
    n_classes = p.shape[1]
    members = torch.bincount(y, minlength=n_classes).double()
    given = p.gather(1, y[:, None]).squeeze(1)
    threshold = torch.zeros(n_classes, dtype=p.dtype).index_add_(0, y, given) / members.clamp(min=1)
    # a class that nobody was given has no threshold
    counts_as = p.masked_fill((p < threshold) | (members == 0), -1.0)
    best, sure = counts_as.argmax(1), counts_as.amax(1) >= 0
    counted = torch.bincount(y[sure], minlength=n_classes).double()
    elsewhere = torch.bincount(y[sure & (best != y)], minlength=n_classes).double()
    return float((elsewhere / counted.clamp(min=1) * members).sum())
