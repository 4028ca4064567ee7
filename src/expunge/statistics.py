"""Intervals, tests and variance components over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import stdtr, stdtrit

from expunge.errors import InvalidInput

_SAME = 1e-12
"""Values nearer than this differ by rounding alone."""


def half_width(sd: Any, n: Any) -> Any:
    """Return the half-width of the 95 % t-interval of a mean: t_{n-1, 0.975} sd / sqrt(n); NaN for n = 1.

    Args:
        sd: standard deviation of independent values, n - 1 in the denominator; a number or an array.
        n: how many, of the same shape. Several unlearning seeds of one training are not independent.
    """
    return stdtrit(n - 1, 0.975) * sd / n**0.5


def paired_t(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, half-width of the 95 % t-interval and two-sided p-value of paired differences.

    Where all differences are equal p is 1 for differences of 0 and 0 for others.

    Raises:
        InvalidInput: fewer than two differences, or one that is not finite.
    """
    if len(differences) < 2:
        raise InvalidInput(
            f"a paired test needs at least two pairs, got {len(differences)}; run both methods on the same tasks and "
            "training seeds"
        )
    _check(differences)
    n, mean, sd = len(differences), statistics.fmean(differences), statistics.stdev(differences)
    if sd < _SAME:
        return mean, 0.0, 1.0 if abs(mean) < _SAME else 0.0
    return mean, float(half_width(sd, n)), 2 * float(stdtr(n - 1, -abs(mean) * n**0.5 / sd))


def variance_components(values: Mapping[Any, Sequence[float]]) -> tuple[float | None, float | None]:
    """Return the standard deviations between training seeds, and between unlearning seeds of one training.

    Model: y_ij = mu + a_i + e_ij, training seed i, unlearning seed j. With a trainings, n_i values of
    training i, N in all, and MS_a, MS_e the mean squares of one-way analysis of variance:

    sigma_e^2 = MS_e;  sigma_a^2 = max(0, (MS_a - MS_e) / n_0);  n_0 = (N - sum_i n_i^2 / N) / (a - 1).

    The first is ``None`` with one training seed or where the two cannot be told apart, the second where no training
    has several unlearning seeds.

    Args:
        values: training seed -> the values of its unlearning seeds.

    Raises:
        InvalidInput: no training seed, one without values, or a value that is not finite.

    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 3.
    """
    if not values:
        raise InvalidInput("variance components need at least one training seed, got none")
    for group in values.values():
        _check(group)
    groups = list(values.values())
    a, total = len(groups), sum(map(len, groups))
    means = [statistics.fmean(group) for group in groups]
    if total == a:
        return None, None
    within = sum((value - mean) ** 2 for group, mean in zip(groups, means, strict=True) for value in group)
    unlearning = within / (total - a)
    if a == 1:
        return None, math.sqrt(unlearning)
    grand = statistics.fmean(value for group in groups for value in group)
    square = sum(len(group) * (mean - grand) ** 2 for group, mean in zip(groups, means, strict=True))
    n_0 = (total - sum(len(group) ** 2 for group in groups) / total) / (a - 1)
    return math.sqrt(max(0.0, (square / (a - 1) - unlearning) / n_0)), math.sqrt(unlearning)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down method, in the order given.

    With p_(1) <= ... <= p_(m):  adjusted_(i) = min(1, max_{j <= i} (m - j + 1) p_(j)). Rejecting where it is at
    most alpha keeps the probability of any false rejection at most alpha, whatever the tests have in common.

    Raises:
        InvalidInput: a p-value outside [0, 1].

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.

    Example:
        >>> holm([0.01, 0.04, 0.02])
        [0.03, 0.04, 0.04]
    """
    broken = [p for p in p_values if not 0 <= p <= 1]
    if broken:
        raise InvalidInput(f"p-values lie in [0, 1], got {broken[0]}; leave out tests that cannot be made")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda item: p_values[item])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def _check(values: Sequence[float]) -> None:
    if not len(values):
        raise InvalidInput("statistics need at least one value, got none; leave out what was not measured")
    broken = [value for value in values if not math.isfinite(value)]
    if broken:
        raise InvalidInput(
            f"statistics need finite values, got {len(broken)} that are not (the first is {broken[0]}); leave out what "
            "is not defined, and say how many"
        )
