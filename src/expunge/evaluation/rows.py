"""One line of the table: a number of every model, and how far two retrainings lie apart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expunge.evaluation.references import ORACLE, RETRAINED, SECOND
from expunge.metrics.base import Evaluated, Measurement, Metric, measure
from expunge.training.loop import Progress, silent

ROLES = ("original", "unlearned", RETRAINED, ORACLE)
"""The models of an audit, in the order of the table's columns."""


@dataclass(frozen=True)
class Row:
    """A number of every model.

    Args:
        name: of the number.
        metric: that made it.
        models: role -> the number, or why there is none; "unlearned" is always there.
        floor: |value of the second retrained model - value of the retrained model|, where both are known.
    """

    name: str
    metric: Metric
    models: Mapping[str, Measurement]
    floor: float | None = None

    def value(self, role: str) -> float | None:
        """Return the number of a model, ``None`` where there is none."""
        return self.models[role].value if role in self.models else None

    @property
    def because(self) -> str:
        """Why the unlearned model has no such number; empty where it has."""
        return self.models["unlearned"].because


def half_width(entry: Measurement | None) -> float:
    """Return half of an interval's width, 0 without one."""
    if entry is None or entry.low is None or entry.high is None:
        return 0.0
    return (entry.high - entry.low) / 2


def measure_rows(
    metrics: Sequence[Metric],
    evaluated: Mapping[str, Evaluated],
    progress: Progress = silent,
) -> tuple[tuple[Row, ...], dict[str, float]]:
    """Return the rows of all metrics, and metric -> seconds.

    ``evaluated``: role -> model, "original" and "unlearned" at least.
    """
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    done = 0
    for metric in metrics:
        started = time.perf_counter()
        found: dict[str, dict[str, Measurement]] = {}
        for role, model in evaluated.items():
            found[role] = {entry.name: entry for entry in measure(metric, model)}
            done += 1
            progress(done / (len(metrics) * len(evaluated)))
        seconds[metric.name] = time.perf_counter() - started
        rows += [_row(name, metric, found) for name in found["unlearned"]]
    return tuple(rows), seconds


def _row(name: str, metric: Metric, found: Mapping[str, Mapping[str, Measurement]]) -> Row:
    models = {role: found[role][name] for role in ROLES if role in found and name in found[role]}
    first, second = (found.get(role, {}).get(name) for role in (RETRAINED, SECOND))
    floor = None
    if first and second and first.value is not None and second.value is not None:
        floor = abs(first.value - second.value)
    return Row(name, metric, models, floor)
