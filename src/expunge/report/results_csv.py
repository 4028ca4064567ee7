"""Results as one comma-separated table, a line per record."""

from __future__ import annotations

import csv
import io
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
)


def write_csv(records: Iterable[Record], path: str | Path) -> None:
    """Write the :data:`CSV_FIELDS` of ``records``, in their order, under a header line; UTF-8.

    Fractions stay fractions and times are seconds, with up to six decimals and no exponent; what was not
    measured is empty. The file appears whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    writer.writerows([_cell(getattr(record, name)) for name in CSV_FIELDS] for record in records)
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
    return str(value)
