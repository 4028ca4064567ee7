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
from expunge.report.paired import Comparison, against_by_sweep
from expunge.report.reference_values import ReferenceRow, reference_rows
from expunge.report.seed_spread import seed_spreads
from expunge.report.summary import Summary, summarise
from expunge.report.sweeps import sort_into_sweeps
from expunge.store.atomic import write_atomically
from expunge.store.record import Record

_SPREADS = ("uxh", "healed", "utility", "asr", "seconds", "sample_gradients", "peak_memory")


def write_tables(records: Iterable[Record], folder: Path, against: str | None = None) -> list[Path]:
    """Write the tables of every sweep and return the paths; Parquet only where pyarrow is installed.

    ``map-*.tex``: Utility x Healed by cell; ``cells-*``: a row for each method and cell with mean, standard
    deviation, half-width of the 95 % t-interval and number of seeds; ``forgetting-*``: the same for
    forgetting tasks; ``paired-*``: every method against one; ``spread-*``: standard deviations between training
    seeds and between unlearning seeds, where the latter vary; ``references-*``: metrics beside the retrained
    model's value and the noise floor, where some were measured. Fractions stay fractions, times are seconds, memory
    is bytes.

    Args:
        records: of a store.
        folder: where the files go.
        against: the method that the others are compared with; by default the best of each sweep.

    Raises:
        StoreError: a file cannot be written.
        InvalidInput: nothing can be compared with ``against``.
    """
    written = []
    sweeps = sort_into_sweeps(records)
    compared = against_by_sweep(sweeps, against)
    for sweep in sweeps:
        written += _write_rows(_paired_rows(compared[sweep.slug]), folder / f"paired-{sweep.slug}")
        written += _write_rows(_spread_rows(sweep.records), folder / f"spread-{sweep.slug}")
        references = [_reference_row(row) for row in reference_rows(sweep.records)]
        written += _write_rows(references, folder / f"references-{sweep.slug}")
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


def _paired_rows(found: Iterable[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "measure": comparison.measure,
            "against": comparison.against,
            "method": rival.method,
            "difference": None if test is None else test.difference.mean,
            "half_width": None if test is None else test.difference.half_width,
            "p": None if test is None else test.p,
            "p_holm": rival.adjusted,
            "tied": rival.tied,
            "pairs": 0 if test is None else test.difference.n,
            "not_paired": None if test is None else test.unpaired,
        }
        for comparison in found
        for rival in comparison.rivals
        for test in (rival.difference,)
    ]


def _spread_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [
        {
            "task": spread.task,
            "measure": spread.measure,
            "method": spread.method,
            "mean": spread.components.mean.mean,
            "half_width": spread.components.mean.half_width,
            "sd_training": spread.components.training,
            "sd_unlearning": spread.components.unlearning,
            "training_seeds": spread.components.n_training,
            "runs": spread.components.n,
            "in_words": spread.sentence,
        }
        for spread in seed_spreads(records)
    ]


def _reference_row(row: ReferenceRow) -> dict[str, Any]:
    return {
        "measure": row.measure,
        "method": row.method,
        "mean": row.value.mean,
        "half_width": row.value.half_width,
        "retrained": row.aim,
        "gap": row.gap,
        "floor": row.floor,
        "oracle": row.oracle,
        "runs": row.cells,
    }


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
