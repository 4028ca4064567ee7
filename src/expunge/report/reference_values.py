"""Metrics that compare with references: every method's value beside the aim and the floor."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.statistics import Interval, mean_interval
from expunge.store.record import Record

AIM, FLOOR, ORACLE = "_retrained", "_floor", "_oracle"
"""Endings of the names under which a record holds what references score, beside the number itself."""


@dataclass(frozen=True)
class ReferenceRow:
    """One number of one method, in the unit of its metric.

    Args:
        measure: name of the number.
        method: its name.
        value: mean over the cells, with its interval over the training seeds.
        aim: mean number of the retrained models of these cells; ``None`` where it is not defined.
        gap: mean of |value - aim|, cell by cell.
        floor: mean of |number of a second retrained model - number of the first|.
        oracle: mean number of the oracles.
        cells: in how many runs the number is defined.
    """

    measure: str
    method: str
    value: Interval
    aim: float | None
    gap: float | None
    floor: float | None
    oracle: float | None
    cells: int


def reference_rows(records: Sequence[Record]) -> list[ReferenceRow]:
    """Return a row for each such number and method of one sweep, by name, then by rising gap."""
    done = [record for record in records if record.status == "done"]
    measures = sorted(
        {name.removesuffix(FLOOR) for record in done for name in record.metrics if name.endswith(FLOOR)}
    )
    rows = []
    for measure in measures:
        by_method: dict[str, list[Record]] = defaultdict(list)
        for record in done:
            if record.metrics.get(measure) is not None:
                by_method[record.method].append(record)
        found = [_row(measure, method, own) for method, own in by_method.items()]
        rows += sorted(found, key=lambda row: (row.gap is None, row.gap, row.method))
    return rows


def _row(measure: str, method: str, records: Sequence[Record]) -> ReferenceRow:
    by_seed: dict[int, list[float]] = defaultdict(list)
    gaps = []
    for record in records:
        value, aim = record.metrics[measure], record.metrics.get(measure + AIM)
        if value is None:
            continue
        by_seed[record.seed].append(value)
        if aim is not None:
            gaps.append(abs(value - aim))
    return ReferenceRow(
        measure,
        method,
        mean_interval(list(map(statistics.fmean, by_seed.values()))),
        _mean(records, measure + AIM),
        statistics.fmean(gaps) if gaps else None,
        _mean(records, measure + FLOOR),
        _mean(records, measure + ORACLE),
        len(records),
    )


def _mean(records: Sequence[Record], name: str) -> float | None:
    values = [value for record in records if (value := record.metrics.get(name)) is not None]
    return statistics.fmean(values) if values else None
