"""Means over seeds, what varies between them, and whether two methods differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from scipy import stats

from expunge.errors import InvalidInput

Key = TypeVar("Key", bound=Hashable)
_SAME = 1e-12
"""Values nearer than this differ by rounding alone."""


@dataclass(frozen=True)
class Interval:
    """A mean with its t-interval, in the unit of the values.

    Args:
        mean: arithmetic mean.
        half_width: of the interval mean - half_width .. mean + half_width; ``None`` for a single value.
        n: number of values.
    """

    mean: float
    half_width: float | None
    n: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half_width is None else self.mean + self.half_width


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of independent values and its t-interval.

    half width = t_{n-1, (1 + level)/2} s / sqrt(n), s with n - 1 in the denominator.

    Args:
        values: one for each training seed; several unlearning seeds of one training are not independent, see
            :func:`variance_components`.
        level: coverage, in (0, 1).

    Raises:
        InvalidInput: no value, one that is not finite, or a level out of range.

    Example:
        >>> found = mean_interval([0.90, 0.92, 0.94])
        >>> round(found.mean, 4), round(found.half_width, 4)
        (0.92, 0.0497)
    """
    _check(values)
    if not 0 < level < 1:
        raise InvalidInput(f"the level of an interval must lie in (0, 1), got {level:g}")
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, len(values))
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error, len(values))


@dataclass(frozen=True)
class Components:
    """What varies between training seeds, and between unlearning seeds of one training.

    Args:
        mean: over the training seeds' means, every training seed of one weight, with its interval.
        training: standard deviation between trainings, unlearning noise taken off; 0 where that noise explains
            all of it; ``None`` with one training seed, or where it cannot be told apart.
        unlearning: standard deviation between unlearning seeds of one training; ``None`` where every training
            has one.
        n_training: number of training seeds.
        n: number of values.
    """

    mean: Interval
    training: float | None
    unlearning: float | None
    n_training: int
    n: int


def variance_components(values: Mapping[Any, Sequence[float]], level: float = 0.95) -> Components:
    """Return the mean over nested seeds with its interval, and the two standard deviations.

    Model: y_ij = mu + a_i + e_ij, training seed i, unlearning seed j. With a trainings, n_i values of
    training i, N in all, and MS_a, MS_e the mean squares of one-way analysis of variance:

    sigma_e^2 = MS_e;  sigma_a^2 = max(0, (MS_a - MS_e) / n_0);  n_0 = (N - sum_i n_i^2 / N) / (a - 1).

    The interval is that of the a training means: more unlearning seeds do not stand in for more trainings.

    Args:
        values: training seed -> the values of its unlearning seeds.
        level: coverage of the interval.

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
    within = sum((value - mean) ** 2 for group, mean in zip(groups, means, strict=True) for value in group)
    unlearning = within / (total - a) if total > a else None
    training: float | None = None
    if a > 1 and unlearning is not None:
        grand = statistics.fmean(value for group in groups for value in group)
        square = sum(len(group) * (mean - grand) ** 2 for group, mean in zip(groups, means, strict=True))
        n_0 = (total - sum(len(group) ** 2 for group in groups) / total) / (a - 1)
        training = max(0.0, (square / (a - 1) - unlearning) / n_0)
    return Components(
        mean=mean_interval(means, level),
        training=None if training is None else math.sqrt(training),
        unlearning=None if unlearning is None else math.sqrt(unlearning),
        n_training=a,
        n=total,
    )


@dataclass(frozen=True)
class PairedDifference:
    """A paired t-test of two methods.

    Args:
        difference: mean of first - second with its interval; ``n`` is the number of pairs.
        p: two-sided p-value of a mean difference of 0.
        unpaired: keys that only one of the two has, left out.
    """

    difference: Interval
    p: float
    unpaired: int


def paired_t_test(
    first: Mapping[Key, float], second: Mapping[Key, float], level: float = 0.95
) -> PairedDifference:
    """Compare two methods over the keys that both have, such as (task, training seed).

    t = mean(d) / (s_d / sqrt(n)) with n - 1 degrees of freedom, d = first - second. Where all differences are
    equal s_d is 0: then p is 1 for differences of 0 and 0 for others.

    Args:
        first: key -> value of one method; average over unlearning seeds first, for pairs to be independent.
        second: key -> value of the other.
        level: coverage of the interval.

    Raises:
        InvalidInput: fewer than two shared keys, or a value that is not finite.
    """
    _check([*first.values(), *second.values()])
    shared = [key for key in first if key in second]
    if len(shared) < 2:
        raise InvalidInput(
            f"a paired test needs at least two keys that both methods have, got {len(shared)} of {len(first)} and "
            f"{len(second)}; run both on the same tasks and training seeds"
        )
    differences = [first[key] - second[key] for key in shared]
    interval = mean_interval(differences, level)
    spread = statistics.stdev(differences)
    if spread >= _SAME:
        t = abs(interval.mean) / (spread / math.sqrt(len(shared)))
        p = float(2 * stats.t.sf(t, len(shared) - 1))
    else:
        p = 1.0 if abs(interval.mean) < _SAME else 0.0
    return PairedDifference(interval, p, len(first) + len(second) - 2 * len(shared))


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
    if not values:
        raise InvalidInput("statistics need at least one value, got none; leave out what was not measured")
    broken = [value for value in values if not math.isfinite(value)]
    if broken:
        raise InvalidInput(
            f"statistics need finite values, got {len(broken)} that are not (the first is {broken[0]}); leave out what "
            "is not defined, and say how many"
        )
