"""The tables of the page that a reader can sort, as plain values for its template; the terminal shows some columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from expunge.results.summary import (
    GAP,
    REFERENCE,
    SHOWN,
    Summary,
    shown_measures,
    standings,
    summarise_forgetting,
)
from expunge.results.wording import (
    MISSING,
    count,
    counted,
    duration,
    is_known,
    megabytes,
    number,
    percent,
    signed_interval,
    with_interval,
)

Chip = tuple[str, str, str | None]
"""Kind, text and title of a mark beside a number."""
BESIDE = ("retrained", "gap", "floor", "oracle")
"""Columns of :func:`expunge.results.comparisons.further_measures` that are shown where some row has a value."""


SPREAD_MEANING = (
    "Mean ± 95 % t-interval over the training seeds, each the mean of its unlearning seeds. Two standard deviations, "
    "in points: between trainings, without the noise of unlearning, and between unlearnings of one training. More "
    "unlearning seeds do not replace training seeds. An average gap also varies with the retrained model."
)
FURTHER_MEANING = (
    "In the unit of the metric; ±: 95 % t-interval over the training seeds. Retrained: of a model trained on the "
    "retain set. Gap: mean of |value - retrained|. Floor: the gap of a second retrained model; a gap that is not "
    "above it is no larger than the noise of retraining."
)


class Cell(NamedTuple):
    """What is shown of a number: its text, what it sorts by, its marks."""

    text: str = MISSING
    value: str | None = None
    chips: Sequence[Chip] = ()


class Column(NamedTuple):
    """A heading, the cell of a row of a frame, and whether the greatest comes first when it is sorted."""

    heading: str
    cell: Callable[[Any], Cell]
    falling: bool = True


def cell(value: float | None, text: str, chips: Sequence[Chip] = ()) -> Cell:
    """Return the cell of a number."""
    return Cell(text, f"{value:.6g}" if is_known(value) else None, chips)


def shown(heading: str, name: str, text: Callable[[Any], str] = percent, *, falling: bool = True) -> Column:
    """Return the column of a frame's column ``name``, by default as percent."""
    return Column(heading, lambda row: cell(getattr(row, name), text(getattr(row, name))), falling)


SPREADS = (
    Column("mean %", lambda row: cell(row.mean, with_interval(row.mean, row.half_width))),
    shown("sd training", "sd_training"),
    shown("sd unlearning", "sd_unlearning"),
    Column(
        "seeds",
        lambda row: cell(
            row.training_seeds, f"{counted(row.training_seeds, 'training')}, {counted(row.runs, 'run')}"
        ),
        falling=False,
    ),
    Column("in words", lambda row: Cell(row.in_words), falling=False),
)
"""Of :func:`expunge.results.comparisons.seed_spreads`."""
_CHIPS = {"best": "best", "second": "2nd", "tied": "tie"}

PAIRS = (
    Column(
        "difference, points",
        lambda row: cell(
            row.difference,
            signed_interval(row.difference, row.half_width),
            [("tied", "tie", None)] if row.tied and is_known(row.p) else [],
        ),
    ),
    shown("p", "p", lambda p: number(p, ".2g"), falling=False),
    shown("p, Holm", "p_holm", lambda p: number(p, ".2g"), falling=False),
    shown("pairs", "pairs", str),
    shown("not paired", "not_paired", str),
)
"""Columns of :func:`expunge.results.comparisons.compare`."""


def further_columns(found: pd.DataFrame) -> list[Column]:
    """Return the columns of :func:`expunge.results.comparisons.further_measures`, or of a part of it."""

    def value(row: Any) -> Cell:
        spread = f" ±{row.half_width:.2g}" if is_known(row.half_width) else ""
        return cell(row.mean, f"{row.mean:.3g}{spread}")

    def gap(row: Any) -> Cell:
        within = row.gap <= row.floor  # false where one is NaN
        return cell(row.gap, _further(row.gap), [("tied", "in the floor", None)] if within else [])

    beside = [
        Column(name, gap, falling=False) if name == "gap" else shown(name, name, _further)
        for name in BESIDE
        if found[name].notna().any()
    ]
    return [Column("value", value), *beside, shown("runs", "runs", str)]


def _further(value: float) -> str:
    # Rounding leaves some 1e-17 where a model is compared with itself.
    return "0" if abs(value) < 1e-12 else number(value, ".3g")


def sortable(label: str, found: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    """Return a table with a row for each row of ``found``, whose column ``method`` names it."""
    rows = [
        {
            "method": row.method,
            "oracle": getattr(row, "oracle", False) is True,
            "cells": [column.cell(row) for column in columns],
        }
        for row in found.itertuples()
    ]
    return {"label": label, "columns": columns, "rows": rows}


def methods_table(summary: Summary, table: pd.DataFrame) -> dict[str, Any]:
    """Return quality and cost of every method on the map: means over its cells, with their standing."""
    methods = summary.methods.rename_axis("method").reset_index()
    methods["share"] = methods["sample_gradients"] / (
        summary.method.get(REFERENCE, {}).get("sample_gradients") or float("nan")
    )
    places = len(summary.places)

    def mean(row: Any) -> Cell:
        return _standing(row, f" ({row.cells}/{places} cells)" if 0 < row.cells < places else "")

    columns = [Column("mean U × H %", mean)]
    if len(summary.regularity_labels) > 1:
        columns += [
            _standings(f"{label} %", standings(table[table["regularity"] == regularity]))
            for regularity, label in summary.regularity_labels.items()
        ]
    columns += [
        shown("healed known %", "healed_known"),
        shown("healed unknown %", "healed_unknown"),
        shown("utility %", "utility"),
        shown("ASR %", "asr"),
    ]
    if summary.recalibrated:
        methods["hidden"] = methods["uxh"] - methods["uxh_recalibrated"]
        columns.append(shown("U × H recalibrated %", "uxh_recalibrated"))
        if "asr_recalibrated" in methods:
            columns.append(shown("ASR recalibrated %", "asr_recalibrated"))
        columns.append(shown("hidden by normalisation statistics, points", "hidden"))
    columns += [
        shown("time per run", "seconds", duration),
        shown("gradients per run", "sample_gradients", count),
        shown("of retrain %", "share", lambda share: percent(share, 0)),
        shown("MB", "peak_memory", megabytes),
        shown("failed", "failed", str),
    ]
    return sortable("Methods of this sweep", methods, columns)


def forgetting_tables(
    table: pd.DataFrame, runs_of: Callable[[str, str, list[str], str], int]
) -> list[dict[str, Any]]:
    """Return a table for each forgetting task.

    ``runs_of``: number of the cell that shows the runs of a task and method, with these measures and this line.
    """
    tables = []
    for task, found in summarise_forgetting(table).items():
        names = shown_measures(found)
        columns = [
            Column(f"{heading(name)} %", functools.partial(_of, name, found), name != GAP) for name in names
        ]
        columns += [
            Column(
                "time per run",
                lambda row: cell(row["seconds", "mean"], duration(row["seconds", "mean"])),
                False,
            ),
            Column("failed", lambda row: cell(row["failed", ""], number(row["failed", ""], ".0f"))),
        ]
        rows: list[dict[str, Any]] = []
        for method, row in found.iterrows():
            cells = [column.cell(row) for column in columns]
            known = GAP in names and is_known(row[GAP, "mean"])
            line = f"average gap {cells[names.index(GAP)].text}" if known else ""
            runs = runs_of(task, method, [name for name in names if name != GAP], line)
            rows.append(
                {
                    "method": method,
                    "oracle": False,
                    "faint": method == REFERENCE,
                    "cells": cells,
                    "runs": runs,
                }
            )
        tables.append({"label": f"Forget {task}", "columns": columns, "rows": rows})
    return tables


def paired_tables(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table for each measure that methods are compared by."""
    by = ["measure", "against", "chosen_by_mean"]
    return [
        sortable(f"{measure} against {against}", found, PAIRS)
        | {"by_mean": by_mean, "against": against, "better": "more" if measure == "U x H" else "less"}
        for (measure, against, by_mean), found in pairs.groupby(by, sort=False)
    ]


def spread_tables(spreads: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table for the map and one for each forgetting task."""
    return [
        sortable(f"{measure}, forget {task}" if task else measure, found, SPREADS)
        for (task, measure), found in spreads.groupby(["task", "measure"], sort=False)
    ]


def further_tables(measures: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table for each measure."""
    return [
        sortable(measure, found, further_columns(found)) for measure, found in measures.groupby("measure")
    ]


def heading(name: str) -> str:
    """Return the name of a measure of forgetting tasks, on one line."""
    return SHOWN[name].replace("\n", " ")


def _standing(row: Any, more: str = "") -> Cell:
    """The cell of a method's standing, see :func:`standings`; None where it has none."""
    if row is None:
        return Cell()
    title = f"paired t-test against the best: p = {row.p:.2g}" if is_known(row.p) else None
    kinds = [kind for kind in (row.mark, "tied" if row.tied else "") if kind in _CHIPS]
    chips = [(kind, _CHIPS[kind], title) for kind in kinds]
    return cell(row.mean, with_interval(row.mean, row.half_width) + more, chips)


def _standings(heading: str, found: pd.DataFrame) -> Column:
    rows = {row.Index: row for row in found.itertuples()}
    return Column(heading, lambda row: _standing(rows.get(row.method)))


def _of(name: str, found: pd.DataFrame, row: Any) -> Cell:
    """The cell of one measure of a forgetting task; the average gap has marks."""
    mean, half = row[name, "mean"], row[name, "half_width"]
    chips = _gap_chips(found[GAP], mean, half) if name == GAP and is_known(mean) else []
    return cell(mean, with_interval(mean, half), chips)


def _gap_chips(gaps: pd.DataFrame, mean: float, half_width: float) -> list[Chip]:
    """Mark the two smallest gaps, and those whose interval overlaps that of the smallest."""
    best = gaps.sort_values("mean", kind="stable").iloc[0]
    ranks = sorted(gaps["mean"].dropna().unique())
    chips: list[Chip] = []
    if mean in ranks[:2]:
        chips.append(("best", "best", None) if mean == ranks[0] else ("second", "2nd", None))
    # A mean without an interval compares as unequal to everything.
    if mean > ranks[0] and mean - best["mean"] <= half_width + best["half_width"]:
        chips.append(("tied", "tie", None))
    return chips
