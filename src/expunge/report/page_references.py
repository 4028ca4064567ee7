"""The part of the page that holds metrics beside the retrained model's value and the noise floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.report.html import Html, element
from expunge.report.page_table import number_cell, sortable
from expunge.report.reference_values import ReferenceRow
from expunge.report.wording import MISSING


def reference_section(rows: Sequence[ReferenceRow], card_of: Mapping[str, str]) -> list[Html]:
    """Return a table for each number, and how to read it."""
    parts = [
        element(
            "p",
            "Means over the runs in which the number is defined, in the unit of the metric; ± is the half-width of "
            "the 95 % t-interval over the training seeds. Retrained: of a model trained on the retain set, the aim. "
            "Gap: mean of |value − retrained|. Floor: the gap of a second retrained model, which differs by its seed "
            "alone; a gap that is not above it is no larger than the noise of retraining.",
            class_="note",
        )
    ]
    for measure in dict.fromkeys(row.measure for row in rows):
        own = [row for row in rows if row.measure == measure]
        oracle = any(row.oracle is not None for row in own)
        headings = [("method", False), ("value", True), ("retrained", True), ("gap", False), ("floor", True)]
        headings += [("oracle", True)] if oracle else []
        body = [_row(row, card_of, oracle) for row in own]
        shown = sortable(
            [*headings, ("runs", True)], body, f"{measure} beside the retrained model", sorted_by=None
        )
        parts += [element("h4", measure), shown]
    return parts


def _row(row: ReferenceRow, card_of: Mapping[str, str], oracle: bool) -> Html:
    link = element("a", row.method, href=f"#{card_of[row.method]}")
    spread = "" if row.value.half_width is None else f" ±{row.value.half_width:.2g}"
    within = row.gap is not None and row.floor is not None and row.gap <= row.floor
    chip = [element("span", "in the floor", class_="chip tied")] if within else []
    return element(
        "tr",
        element("th", link, scope="row", data_value=row.method),
        number_cell(row.value.mean, f"{row.value.mean:.3g}{spread}"),
        number_cell(row.aim, _text(row.aim)),
        number_cell(row.gap, _text(row.gap), *chip),
        number_cell(row.floor, _text(row.floor)),
        *([number_cell(row.oracle, _text(row.oracle))] if oracle else []),
        number_cell(row.cells, str(row.cells)),
    )


def _text(value: float | None) -> str:
    # Rounding leaves some 1e-17 where a model is compared with itself.
    return MISSING if value is None else "0" if abs(value) < 1e-12 else f"{value:.3g}"
