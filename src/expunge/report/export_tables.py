"""The report's tables as files: LaTeX for a paper, CSV and Parquet for a program."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expunge.errors import StoreError
from expunge.report.comparison import half_width, standings
from expunge.report.forgetting import summarise_forgetting
from expunge.report.latex import forgetting_tabular, map_tabular
from expunge.report.summary import Summary, summarise
from expunge.report.sweeps import sort_into_sweeps
from expunge.store.atomic import write_atomically
from expunge.store.record import Record

_SPREADS = ("uxh", "healed", "utility", "asr", "seconds", "sample_gradients", "peak_memory")


def write_tables(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write the tables of every sweep and return the paths; Parquet only where pyarrow is installed.

    ``map-*.tex``: Utility x Healed by cell; ``cells-*``: a row for each method and cell with mean, standard
    deviation, half-width of the 95 % t-interval and number of seeds; ``forgetting-*``: the same for
    forgetting tasks. Fractions stay fractions, times are seconds, memory is bytes.

    Raises:
        StoreError: a file cannot be written.
    """
    written = []
    for sweep in sort_into_sweeps(records):
        if sweep.corruption:
            summary = summarise(sweep.corruption)
            text = map_tabular(summary, standings(summary, sweep.corruption), sweep.title)
            written.append(_write(folder / f"map-{sweep.slug}.tex", text.encode()))
            written += _write_rows(_cell_rows(summary), folder / f"cells-{sweep.slug}")
        if sweep.forgetting:
            summaries = summarise_forgetting(sweep.forgetting)
            text = forgetting_tabular(summaries, sweep.title)
            written.append(_write(folder / f"forgetting-{sweep.slug}.tex", text.encode()))
            rows = [
                {
                    "task": found.task,
                    "method": found.method,
                    "measurement": name,
                    "mean": value.mean,
                    "half_width": value.half_width,
                    "seeds": value.n,
                    "failed": found.failed,
                }
                for found in summaries
                for name, value in found.values.items()
            ]
            written += _write_rows(rows, folder / f"forgetting-{sweep.slug}")
    return written


def _cell_rows(summary: Summary) -> list[dict[str, Any]]:
    rows = []
    for method in summary.methods:
        for place in summary.places:
            cell = summary.cells.get((method.method, *place))
            if cell is None:
                continue
            row: dict[str, Any] = {
                "method": cell.method,
                "oracle": method.oracle,
                "regularity": cell.regularity,
                "discovery": cell.discovery,
                "seeds": cell.seeds,
                "failed": cell.failed,
            }
            for name in _SPREADS:
                spread = getattr(cell, name)
                row[name] = None if spread is None else spread.mean
                row[f"{name}_sd"] = None if spread is None else spread.sd
                row[f"{name}_half_width"] = None if spread is None else half_width(spread)
            rows.append(row)
    return rows


def _write_rows(rows: Sequence[dict[str, Any]], stem: Path) -> list[Path]:
    if not rows:
        return []
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    written = [_write(stem.with_name(f"{stem.name}.csv"), text.getvalue().encode())]
    if importlib.util.find_spec("pyarrow") is not None:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
        packed = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(list(rows)), packed)
        written.append(_write(stem.with_name(f"{stem.name}.parquet"), packed.getvalue()))
    return written


def _write(path: Path, content: bytes) -> Path:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise StoreError(
            f"table {path} cannot be written: {error}; choose a folder that can be written"
        ) from error
    return path
