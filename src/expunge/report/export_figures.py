"""The report's figures as files for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from expunge.report.figure import write_chart, write_map
from expunge.report.front import COSTS, front, fronts_chart
from expunge.report.summary import summarise
from expunge.report.sweeps import sort_into_sweeps
from expunge.store.record import LEARNED_ENOUGH, Record

_FORMATS = ("svg", "pdf")


def write_figures(records: Iterable[Record], folder: Path, learned: Mapping[str, float]) -> list[Path]:
    """Write the map and the accuracy / cost front of every sweep as SVG and PDF; return the paths.

    Args:
        records: of one store; forgetting tasks have no figure.
        folder: made if missing.
        learned: key of a first model -> share of the corruption it had learned.

    Raises:
        StoreError: a file cannot be written.
    """
    written = []
    for sweep in sort_into_sweeps(records):
        taken = sweep.corruption
        if not taken:
            continue
        summary = summarise(taken)
        unlearned = {
            (record.method, record.regularity, record.discovery)
            for record in taken
            if learned.get(record.model_key, 1.0) < LEARNED_ENOUGH
            and record.regularity is not None
            and record.discovery is not None
        }
        for form in _FORMATS:
            path = folder / f"map-{sweep.slug}.{form}"
            write_map(taken, path, unlearned)
            written.append(path)
            if any(front(summary, cost) for cost in COSTS):
                path = folder / f"front-{sweep.slug}.{form}"
                write_chart(fronts_chart(summary), path)
                written.append(path)
    return written
