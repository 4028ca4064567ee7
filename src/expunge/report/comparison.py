"""Which differences between methods the seeds bear out."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from scipy import stats

from expunge.report.summary import Place, Spread, Summary
from expunge.statistics import Interval, PairedDifference, mean_interval, paired_t_test
from expunge.store.record import Record

LEVEL = 0.05
"""Two methods whose paired test has a larger p-value count as tied."""

_SAME = 1e-12

Mark = Literal["best", "second", ""]
Unit = TypeVar("Unit", bound=Hashable)
Part = TypeVar("Part", bound=Hashable)


@dataclass(frozen=True)
class Standing:
    """One method in one column: its mean over a part of the map.

    Args:
        interval: mean over the cells, then over the seeds, and its 95 % t-interval over the seeds; None
            where no cell is done.
        mark: "best" or "second" by the mean.
        tied: whether the test against the best does not tell the two apart.
        p: two-sided p-value of the paired t-test against the best; None where it cannot be made.
    """

    interval: Interval | None
    mark: Mark = ""
    tied: bool = False
    p: float | None = None


def half_width(spread: Spread) -> float | None:
    """Return the half-width of the 95 % t-interval over the seeds; None for a single one."""
    if spread.sd is None:
        return None
    return float(stats.t.ppf(0.975, spread.n - 1)) * spread.sd / math.sqrt(spread.n)


def standings(
    summary: Summary, records: Sequence[Record], places: Collection[Place] | None = None
) -> dict[str, Standing]:
    """Return every method's standing in Utility x Healed over ``places``, by default the whole map.

    The test: d_s = mean over the cells that both methods have for seed s of (method - best), and a paired
    t-test of d_s against 0 over the seeds, at least two. Cells of one seed share their first model, so
    seeds are the unit and cells are not. Oracles and methods that lack a cell which another one has get
    no mark.
    """
    wanted = set(summary.places if places is None else places)
    values: dict[str, dict[int, dict[Place, float]]] = {}
    for method in dict.fromkeys(record.method for record in records):
        found_of = averaged(
            (record.seed, place, record.uxh)
            for record in records
            if record.method == method and record.status == "done" and record.uxh is not None
            for place in wanted & {(record.regularity, record.discovery)}
        )
        if found_of:
            values[method] = found_of
    oracles = {method.method for method in summary.methods if method.oracle}
    means = {method: _mean_of_cells(of_seeds) for method, of_seeds in values.items()}
    coverage = {
        method: len({place for cells in values[method].values() for place in cells}) for method in values
    }
    fullest = max((count for method, count in coverage.items() if method not in oracles), default=0)
    ranked = sorted(
        (method for method in values if method not in oracles and coverage[method] == fullest),
        key=lambda method: (-means[method], method),
    )
    found: dict[str, Standing] = {}
    for method in (item.method for item in summary.methods):
        if method not in values:
            found[method] = Standing(None)
            continue
        interval = _interval(means[method], values[method])
        if method not in ranked:
            found[method] = Standing(interval)
        elif means[method] >= means[ranked[0]] - _SAME:
            found[method] = Standing(interval, "best")
        else:
            p = paired_p(values[method], values[ranked[0]])
            second = means[method] >= _second(ranked, means) - _SAME
            found[method] = Standing(interval, "second" if second else "", p is not None and p >= LEVEL, p)
    return found


def averaged(found: Iterable[tuple[Unit, Part, float]]) -> dict[Unit, dict[Part, float]]:
    """Return unit -> part -> mean of its values, which are those of several unlearning seeds."""
    values: dict[Unit, dict[Part, list[float]]] = defaultdict(lambda: defaultdict(list))
    for unit, part, value in found:
        values[unit][part].append(value)
    return {
        unit: {part: statistics.fmean(entries) for part, entries in parts.items()}
        for unit, parts in values.items()
    }


def paired_p(
    ours: Mapping[int, Mapping[Place, float]], theirs: Mapping[int, Mapping[Place, float]]
) -> float | None:
    """Return the two-sided p-value of the paired t-test over the seeds, or None for fewer than two."""
    found = paired(ours, theirs)
    return None if found is None else found.p


def paired(
    ours: Mapping[Unit, Mapping[Part, float]], theirs: Mapping[Unit, Mapping[Part, float]]
) -> PairedDifference | None:
    """Return the paired t-test over the units, or None for fewer than two that both have.

    The difference of a unit is the mean over the parts that both have of (ours - theirs).

    Args:
        ours: unit, which is independent of the others -> part -> value.
        theirs: the same of the other method.
    """
    differences: dict[Unit, float] = {}
    for unit in [unit for unit in ours if unit in theirs]:
        both = [part for part in ours[unit] if part in theirs[unit]]
        if both:
            differences[unit] = statistics.fmean(ours[unit][part] - theirs[unit][part] for part in both)
    if len(differences) < 2:
        return None
    found = paired_t_test(differences, dict.fromkeys(differences, 0.0))
    return replace(found, unpaired=len(ours) + len(theirs) - 2 * len(differences))


def _mean_of_cells(of_seeds: Mapping[int, Mapping[Place, float]]) -> float:
    by_place: dict[Place, list[float]] = {}
    for cells in of_seeds.values():
        for place, value in cells.items():
            by_place.setdefault(place, []).append(value)
    return statistics.fmean(statistics.fmean(by_place[place]) for place in sorted(by_place))


def _interval(mean: float, of_seeds: Mapping[int, Mapping[Place, float]]) -> Interval:
    # A seed that lacks cells has another mean, and would widen the interval for no reason of its own.
    fullest = max(len(cells) for cells in of_seeds.values())
    whole = [statistics.fmean(cells.values()) for cells in of_seeds.values() if len(cells) == fullest]
    return Interval(mean, mean_interval(whole).half_width, len(whole))


def _second(ranked: Sequence[str], means: Mapping[str, float]) -> float:
    top = means[ranked[0]]
    return max((means[method] for method in ranked if means[method] < top - _SAME), default=-math.inf)
