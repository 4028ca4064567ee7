"""The table of measurements: one row for each number of each run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from expunge.store.record import BESIDE, METRICS, VALUE, Record
from expunge.tasks.regularity import regularity_name

COSTS = ("seconds", "sample_gradients", "peak_memory")
"""Measures that say what a run cost: seconds, a count, bytes."""
RUN = (
    "run", "key", "sweep", "data", "model", "task", "regularity", "discovery", "method", "is_oracle", "seed",
    "unlearning_seed", "status",
)  # fmt: skip
"""Columns that say which run a number comes from."""
COLUMNS = (*RUN, "measure", "value", *BESIDE)


def measurements(records: Iterable[Record], sweep: str = "") -> pd.DataFrame:
    """Return the numbers of ``records`` as one long table, in their order.

    Columns: those of :data:`RUN`; ``measure`` and its ``value``; ``low`` and ``high``, its interval; ``retrained`` and
    ``oracle``, the same number of a retrained model and of one trained on the true labels; ``floor``, the difference
    of two retrained models. Fractions are in [0, 1], ``seconds`` in s, ``peak_memory`` in bytes. A run that failed,
    was skipped or measured nothing has one row, whose measure is empty. ``task`` leaves the seed out; ``regularity``
    and ``discovery`` are NaN where good data is forgotten.

    Args:
        records: of one sweep.
        sweep: its title.
    """
    rows: list[tuple[Any, ...]] = []
    for number, record in enumerate(records):
        run = (
            number, record.key, sweep, record.data, record.model, task_text(record), record.regularity,
            record.discovery, record.method, record.oracle, record.seed, record.unlearning_seed, record.status,
        )  # fmt: skip
        found = _numbers(record) if record.status == "done" else []
        rows += [(*run, *numbers) for numbers in found or [("", *[None] * (1 + len(BESIDE)))]]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numeric = ["regularity", "discovery", "value", *BESIDE]
    return table.astype(dict.fromkeys(numeric, float))


def _numbers(record: Record) -> list[tuple[Any, ...]]:
    """Measure, value and what stands beside it, for all that is defined."""
    plain = {name: {VALUE: getattr(record, name)} for name in (*METRICS, *COSTS)}
    return [
        (name, entry[VALUE], *(entry.get(part) for part in BESIDE))
        for name, entry in (plain | record.metrics).items()
        if entry[VALUE] is not None
    ]


def task_settings(record: Record) -> dict[str, Any]:
    """Return the settings of a record's task, seed apart."""
    return {name: value for name, value in record.task_settings.items() if name != "seed"}


def task_text(record: Record) -> str:
    """Return kind and settings of a record's task, seed apart, on one line; the kind alone on the map."""
    if record.on_map:
        return record.task
    settings = task_settings(record)
    shown = ", ".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in settings.items()
    )
    return f"{record.task} {shown}" if len(shown) < 80 else f"{record.task} ({record.task_key[:8]})"


def place_text(regularity: float, discovery: float) -> str:
    """Return where a cell lies on the map: ``poison, 10% known``."""
    return f"{regularity_name(regularity)}, {100 * discovery:.3g}% known"


def is_on_map(table: pd.DataFrame) -> bool:
    """Whether a sweep's rows have a place on the map; else they are of tasks that forget good data."""
    return bool(table["regularity"].notna().any())
