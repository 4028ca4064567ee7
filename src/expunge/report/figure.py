"""The map of a sweep as a figure: one heat map per method on one shared scale."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

import altair as alt

from expunge.errors import InvalidInput, StoreError
from expunge.report.summary import MethodSummary, Summary, printable, summarise
from expunge.store.atomic import write_atomically
from expunge.store.record import Record

FORMATS = ("svg", "png", "pdf")
ABSENT, UNLEARNED = "×", "°"
Chart = alt.ConcatChart | alt.HConcatChart | alt.LayerChart

# Pixels. Narrower heat maps than the least width would cut the names above them.
_CELL_WIDTH, _CELL_HEIGHT, _LEAST_WIDTH, _GAP, _HEADING = 66, 38, 190, 24, 46
_WIDTH, _MOST_COLUMNS = 840, 4  # of all heat maps in a row, and their number
_INK, _FAINT = "#1f2328", "#59636e"
_EMPTY = "#e4e7ea"
_INKS = ("white", "black", _FAINT)
# Viridis is as far from black as from white (in WCAG contrast) at this value.
_DARK_TEXT_FROM = 45


def map_chart(
    records: Iterable[Record], unlearned: Collection[tuple[str, float, float]] = ()
) -> alt.ConcatChart:
    """Return one heat map of mean Utility x Healed per method: discovery rate by regularity.

    All share one scale from 0 to 100 %. Cells without a value are grey with a cross; the (method,
    regularity, discovery) in ``unlearned``, whose first model had not learned the corruption, get a mark.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    summary = summarise(records)
    width = max(_LEAST_WIDTH, _CELL_WIDTH * len(summary.discoveries))
    per_row = max(1, min(_MOST_COLUMNS, _WIDTH // (width + _GAP)))
    # As few rows as fit, then as even as possible: nine methods make 3 x 3, not 4 + 4 + 1.
    rows = math.ceil(len(summary.methods) / per_row)
    columns = math.ceil(len(summary.methods) / rows)
    panels = [
        _panel(
            summary,
            method,
            width,
            unlearned,
            leftmost=number % columns == 0,
            lowest=number + columns >= len(summary.methods),
        )
        for number, method in enumerate(summary.methods)
    ]
    title = alt.TitleParams(
        text="Utility × Healed",
        subtitle=_subtitle(summary, unlearned),
        anchor="start",
        fontSize=20,
        subtitleFontSize=14,
        offset=18,
    )
    # Flush bounds line the tiles up; the headings then need their room from the spacing.
    spacing = {"row": _GAP + _HEADING, "column": _GAP}
    chart: alt.ConcatChart = (
        alt.ConcatChart(concat=panels, columns=columns, spacing=spacing, bounds="flush", title=title)
        .configure(font="Helvetica, Arial, sans-serif", background="white", padding=16)
        .configure_view(stroke=None)
        .configure_title(color=_INK, subtitleColor=_FAINT)
        .configure_axis(
            labelColor=_INK,
            titleColor=_FAINT,
            labelFontSize=13,
            titleFontSize=13,
            titleFontWeight="normal",
            domain=False,
            ticks=False,
            labelPadding=6,
        )
        .configure_legend(
            labelColor=_INK, titleColor=_FAINT, labelFontSize=13, titleFontSize=13, titleFontWeight="normal"
        )
    )
    return chart


def write_map(
    records: Iterable[Record], path: str | Path, unlearned: Collection[tuple[str, float, float]] = ()
) -> None:
    """Write :func:`map_chart`; see :func:`write_chart`."""
    write_chart(map_chart(records, unlearned), path)


def write_chart(chart: Chart, path: str | Path) -> None:
    """Write ``chart`` as SVG, PNG or PDF, as the suffix of ``path`` says; needs no network.

    The file appears whole or not at all.

    Raises:
        InvalidInput: another suffix.
        StoreError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InvalidInput(
            f"a figure cannot be written as {path.name!r}; its name must end in "
            f"{', '.join(f'.{form}' for form in FORMATS)}"
        )
    content = _render(chart, suffix)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise StoreError(
            f"figure {path} cannot be written: {error}; choose a path that can be written"
        ) from error


def _render(chart: Chart, form: str) -> bytes:
    if form == "svg":
        text = io.StringIO()
        chart.save(text, format="svg")
        return text.getvalue().encode("utf-8")
    kind: Literal["png", "pdf"] = "png" if form == "png" else "pdf"
    binary = io.BytesIO()
    chart.save(binary, format=kind, scale_factor=2 if kind == "png" else 1)
    return binary.getvalue()


def _panel(
    summary: Summary,
    method: MethodSummary,
    width: int,
    unlearned: Collection[tuple[str, float, float]],
    *,
    leftmost: bool,
    lowest: bool,
) -> alt.LayerChart:
    rows, columns = summary.regularity_labels, summary.discovery_labels
    values = [_value(summary, method.method, *place, unlearned) for place in summary.places]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "discovery:O",
            sort=list(columns.values()),
            title="corrupted examples known" if lowest else None,
            axis=alt.Axis(labels=lowest, labelAngle=0),
        ),
        y=alt.Y(
            "regularity:O",
            sort=list(rows.values())[::-1],
            title=None,
            axis=alt.Axis(labels=leftmost),
        ),
    )
    shade = alt.Color(
        "percent:Q",
        scale=alt.Scale(scheme="viridis", domain=[0, 100]),
        legend=alt.Legend(title="%", gradientLength=150, values=[0, 25, 50, 75, 100]),
    )
    filled = base.transform_filter("isValid(datum.percent)").encode(color=shade)
    empty = base.transform_filter("!isValid(datum.percent)")
    layers = [
        empty.mark_rect(stroke="white", strokeWidth=2, color=_EMPTY),
        filled.mark_rect(stroke="white", strokeWidth=2),
    ]
    for ink in _INKS:
        # A layer each: a colour channel for the text would have to share the tiles' scale.
        text = base.transform_filter(f"datum.ink == '{ink}'").encode(text="label:N")
        layers.append(text.mark_text(fontSize=15, color=ink))
    return alt.LayerChart(layer=layers).properties(
        width=width,
        height=_CELL_HEIGHT * len(rows),
        title=alt.TitleParams(
            text=printable(method.method),
            subtitle=_caption(summary, method),
            anchor="start",
            frame="group",
            fontSize=15,
            subtitleFontSize=13,
            offset=6,
            limit=width + _GAP - 4,
        ),
    )


def _value(
    summary: Summary,
    method: str,
    regularity: float,
    discovery: float,
    unlearned: Collection[tuple[str, float, float]],
) -> dict[str, Any]:
    cell = summary.cells.get((method, regularity, discovery))
    percent = None if cell is None or cell.uxh is None else 100 * cell.uxh.mean
    partly = cell is not None and percent is not None and cell.failed > 0
    light = percent is not None and percent < _DARK_TEXT_FROM
    marks = ("!" if partly else "") + (UNLEARNED if (method, regularity, discovery) in unlearned else "")
    return {
        "regularity": summary.regularity_labels[regularity],
        "discovery": summary.discovery_labels[discovery],
        "percent": percent,
        "label": ABSENT if percent is None else f"{percent:.0f}{marks}",
        "ink": _FAINT if percent is None else "white" if light else "black",
    }


def _caption(summary: Summary, method: MethodSummary) -> str:
    kind = "oracle, " if method.oracle else ""
    if method.uxh is None:
        return f"{kind}no value"
    of_all = (
        "" if method.cells == len(summary.places) else f" ({method.cells} of {len(summary.places)} cells)"
    )
    return f"{kind}mean {100 * method.uxh:.1f}{of_all}"


def _subtitle(summary: Summary, unlearned: Collection[tuple[str, float, float]]) -> str:
    count = len(summary.seeds)
    cells = [
        summary.cells.get((method.method, *place)) for method in summary.methods for place in summary.places
    ]
    parts = [
        printable(summary.data),
        printable(summary.model),
        "1 seed" if count == 1 else f"mean of {count} seeds",
    ]
    if any(cell is None or cell.uxh is None for cell in cells):
        parts.append(f"{ABSENT} failed or not run")
    if any(cell is not None and cell.uxh is not None and cell.failed for cell in cells):
        parts.append("! some seeds failed")
    if unlearned:
        parts.append(f"{UNLEARNED} first model had not learned the corruption")
    return ", ".join(parts)
