"""Results as one comma-separated table, a line per record."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from expunge.errors import StoreError
from expunge.store.atomic import write_atomically
from expunge.store.record import Record

CSV_FIELDS: tuple[str, ...] = (
    "method",
    "regularity",
    "discovery",
    "seed",
    "healed",
    "healed_known",
    "healed_unknown",
    "utility",
    "uxh",
    "asr",
    "seconds",
    "sample_gradients",
    "status",
    "data",
    "model",
    "task",
    "task_settings",
    "unlearning_seed",
)
"""Columns of every table; those of the measurements in :attr:`Record.metrics` follow."""


def write_csv(records: Iterable[Record], path: str | Path) -> None:
    """Write :data:`CSV_FIELDS` and the named measurements of ``records``, in their order; UTF-8.

    A header line names the columns. Every measurement that some record has is one, in the order of their
    names; the settings of a task are JSON. Fractions stay fractions and times are seconds, with up to six
    decimals and no exponent; what was not measured is empty. The file appears whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    taken = list(records)
    measured = sorted({name for record in taken for name in record.metrics} - set(CSV_FIELDS))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*CSV_FIELDS, *measured])
    writer.writerows(
        [
            _cell(value)
            for value in (
                *(getattr(record, name) for name in CSV_FIELDS),
                *(record.metrics.get(name) for name in measured),
            )
        ]
        for record in taken
    )
    try:
        write_atomically(Path(path), table.getvalue().encode("utf-8"))
    except OSError as error:
        raise StoreError(
            f"results {path} cannot be written: {error}; choose a path that can be written"
        ) from error


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)
