"""Forgetting tasks: each measurement beside the retrained model's, one table for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.report.forgetting import (
    GAPS,
    REFERENCE,
    SHOWN,
    ForgettingSummary,
    rank,
    summarise_forgetting,
    task_text,
)
from expunge.report.html import Html, element
from expunge.report.page_cells import Asked, Cells
from expunge.report.page_table import number_cell, sortable
from expunge.report.wording import MISSING, duration, with_interval
from expunge.statistics import Interval
from expunge.store.record import Record

_COLUMNS = {"seconds": "s", "sample_gradients": "gradients", "peak_memory": "MB"}


def forgetting_section(
    title: str, records: Sequence[Record], cells: Cells, card_of: Mapping[str, str]
) -> list[Html]:
    """Return a heading and a table for each task of one sweep, and take up their rows as cells."""
    summaries = summarise_forgetting(records)
    by_row: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_row.setdefault((task_text(record), record.method), []).append(record)
    parts = []
    for task in dict.fromkeys(found.task for found in summaries):
        rows = sorted((found for found in summaries if found.task == task), key=rank)
        names = [name for name in SHOWN if any(name in row.values for row in rows)]
        headings = [("method", False), *((f"{_heading(name)} %", name != "average_gap") for name in names)]
        headings += [("time per run", False), ("failed", True)]
        label = f"Forget {task}"
        body = [
            _row(row, names, rows, cells, by_row[row.task, row.method], f"{title}, {label}", card_of)
            for row in rows
        ]
        parts += [element("h3", label), sortable(headings, body, label, sorted_by=None)]
    return parts


def explanation() -> Html:
    """Return how the tables of :func:`forgetting_section` are to be read."""
    gaps = ", ".join(_heading(name) for name in GAPS)
    return element(
        "p",
        f"Closer to {REFERENCE} is better in every column; forget below {REFERENCE}'s is over-forgetting. Average gap: "
        f"mean of |value − {REFERENCE}'s| over {gaps}, where the task has them; lower is better. "
        "± is the half-width of the 95 % t-interval over first trainings; tie: the interval of "
        "the gap overlaps that of the best.",
        class_="note",
    )


def _row(
    row: ForgettingSummary,
    names: Sequence[str],
    rows: Sequence[ForgettingSummary],
    cells: Cells,
    records: Sequence[Record],
    title: str,
    card_of: Mapping[str, str],
) -> Html:
    measured = {name: f"{_heading(name)} %" for name in names if name != "average_gap"}
    gap = row.values.get("average_gap")
    asked = Asked(
        title=f"{row.method}: {title}",
        lines=(f"average gap {with_interval(gap)}",) if gap else (),
        records=records,
        columns={**measured, **_COLUMNS},
        command=None,
    )
    values = [row.values.get(name) for name in names]
    runs = element(
        "button", "runs", type="button", class_="runs", data_cell=cells.add(asked), aria_haspopup="dialog",
        aria_label=f"runs of {row.method}",
    )  # fmt: skip
    return element(
        "tr",
        element(
            "th",
            element("a", row.method, href=f"#{card_of[row.method]}"),
            " ",
            runs,
            scope="row",
            data_value=row.method,
        ),
        *(_value(value, name, rows) for name, value in zip(names, values, strict=True)),
        number_cell(row.seconds, duration(row.seconds)),
        number_cell(row.failed, str(row.failed)),
        class_="oracle" if row.method == REFERENCE else None,
    )


def _value(value: Interval | None, name: str, rows: Sequence[ForgettingSummary]) -> Html:
    if value is None:
        return number_cell(None, MISSING)
    chips = []
    if name == "average_gap":
        gaps = sorted(
            (other.values[name] for other in rows if name in other.values), key=lambda gap: gap.mean
        )
        ranks = sorted({gap.mean for gap in gaps})
        if value.mean in ranks[:2]:
            chips.append(("best", "best") if value.mean == ranks[0] else ("second", "2nd"))
        if value.mean > ranks[0] and _overlap(value, gaps[0]):
            chips.append(("tied", "tie"))
    shown = [element("span", text, class_=f"chip {kind}") for kind, text in chips]
    return number_cell(value.mean, with_interval(value), *shown)


def _overlap(first: Interval, second: Interval) -> bool:
    """Whether two intervals share a value; a mean alone is no interval."""
    if first.half_width is None or second.half_width is None:
        return False
    return abs(first.mean - second.mean) <= first.half_width + second.half_width


def _heading(name: str) -> str:
    return SHOWN[name].replace("\n", " ")
