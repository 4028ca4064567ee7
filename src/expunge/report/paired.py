"""Every method against one: paired over what both were run on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expunge.errors import InvalidInput, near_miss
from expunge.report.comparison import LEVEL, averaged, paired
from expunge.report.forgetting import REFERENCE, average_gaps, run_of, task_text
from expunge.report.seed_spread import GAP_MEASURE
from expunge.report.summary import BASELINE
from expunge.report.sweeps import Sweep
from expunge.statistics import PairedDifference, holm
from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name

MAP_MEASURE = "U x H"

Pair = tuple[str, int]
"""(task, training seed); on the map the task is the regularity, as one first model serves every discovery rate."""
Values = Mapping[str, Mapping[Pair, Mapping[str, float]]]
"""Method -> pair -> cell -> value, the mean over unlearning seeds."""


@dataclass(frozen=True)
class Rival:
    """One method against the chosen one.

    Args:
        method: its name.
        difference: mean of (method - chosen one) over the pairs, its 95 % t-interval and p; ``None`` with fewer than
            two pairs.
        adjusted: p by Holm's method, for the number of methods in the table.
        tied: whether ``adjusted`` does not tell the two apart.
    """

    method: str
    difference: PairedDifference | None
    adjusted: float | None
    tied: bool


@dataclass(frozen=True)
class Comparison:
    """All methods against one.

    Args:
        measure: :data:`MAP_MEASURE`, of which more is better, or the average gap, of which less is.
        against: the chosen method.
        best: whether it was chosen for its mean, which makes p-values too small: it was not named beforehand.
        rivals: the others, best first.
    """

    measure: str
    against: str
    best: bool
    rivals: tuple[Rival, ...]


def against_by_sweep(sweeps: Sequence[Sweep], against: str | None = None) -> dict[str, list[Comparison]]:
    """Return the slug of each sweep -> its comparisons, none where nothing can be compared.

    Args:
        sweeps: of one store.
        against: the method to compare with; by default the best of each sweep.

    Raises:
        InvalidInput: no sweep has a finished run of ``against`` beside another method's.
    """
    found = {sweep.slug: comparisons(sweep.records, against) for sweep in sweeps}
    if against is not None and not any(found.values()):
        names = sorted({record.method for sweep in sweeps for record in sweep.records})
        raise InvalidInput(
            f"nothing can be compared with {against!r}{near_miss(against, names)}: it has no finished run beside "
            f"another method's (methods: {', '.join(names)})"
        )
    return found


def comparisons(records: Sequence[Record], against: str | None = None) -> list[Comparison]:
    """Compare the methods of one sweep on the map, on forgetting tasks, or on both.

    Pairs are (task, training seed): cells that start from one first model are averaged, since they are not
    independent. Oracles are left out unless one is chosen.

    Args:
        records: of one sweep.
        against: the method to compare with; by default the best by its mean, among those run everywhere. Nothing is
            returned where it has no finished run.
    """
    hidden = {record.method for record in records if record.oracle} - {against}
    shown = [record for record in records if record.status == "done" and record.method not in hidden]
    found = []
    for measure, values, sign in (
        (MAP_MEASURE, _of_map(shown), 1),
        (GAP_MEASURE, _of_forgetting(shown), -1),
    ):
        if len(values) > 1 and (against is None or against in values):
            found.append(_comparison(measure, values, against, sign))
    return found


def _of_map(records: Sequence[Record]) -> Values:
    return {
        method: averaged(
            ((regularity_name(record.regularity or 0.0), record.seed), str(record.discovery), record.uxh)
            for record in records
            if record.method == method and record.uxh is not None and record.regularity is not None
        )
        for method in dict.fromkeys(record.method for record in records if record.uxh is not None)
    }


def _of_forgetting(records: Sequence[Record]) -> Values:
    forgetting = [record for record in records if record.task != "corruption"]
    gaps = average_gaps(forgetting)
    return {
        method: averaged(
            ((task_text(record), record.seed), "", gaps[run_of(record)])
            for record in forgetting
            if record.method == method and run_of(record) in gaps
        )
        for method in dict.fromkeys(run[0] for run in gaps)
        if method != REFERENCE
    }


def _comparison(measure: str, values: Values, against: str | None, sign: int) -> Comparison:
    means = {method: _mean(pairs) for method, pairs in values.items()}
    coverage = {method: sum(map(len, pairs.values())) for method, pairs in values.items()}
    if against is None:
        candidates = [method for method in values if method != BASELINE] or list(values)
        fullest = max(coverage[method] for method in candidates)
        whole = [method for method in candidates if coverage[method] == fullest]
        chosen = max(sorted(whole), key=lambda method: sign * means[method])
    else:
        chosen = against
    others = sorted(
        (method for method in values if method != chosen), key=lambda method: -sign * means[method]
    )
    tests = {method: paired(values[method], values[chosen]) for method in others}
    made = [method for method in others if tests[method] is not None]
    adjusted = dict(zip(made, holm([test.p for test in tests.values() if test is not None]), strict=True))
    rivals = tuple(
        Rival(method, tests[method], adjusted.get(method), adjusted.get(method, 0.0) >= LEVEL)
        for method in others
    )
    return Comparison(measure, chosen, against is None, rivals)


def _mean(pairs: Mapping[Pair, Mapping[str, float]]) -> float:
    return statistics.fmean(value for cells in pairs.values() for value in cells.values())
