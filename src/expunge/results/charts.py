"""The map and the learning curves: one specification each, for page and paper; and charts as files."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from expunge.results.fronts import COSTS, front, fronts_chart
from expunge.results.original_models import not_learned
from expunge.results.summary import Cell, Summary
from expunge.results.sweeps import sort_into_sweeps
from expunge.results.wording import ABSENT, UNLEARNED, counted, is_known, printable, with_interval
from expunge.store.atomic import write_output
from expunge.store.record import Record

# Pixels. Narrower heat maps than the least width would cut the names above them.
_CELL_WIDTH, _CELL_HEIGHT, _LEAST_WIDTH, _GAP, _HEADING = 66, 38, 190, 24, 46
_WIDTH, _MOST_COLUMNS = 840, 4  # of all heat maps in a row, and their number
_INK, _FAINT = "#1f2328", "#59636e"
_EMPTY = "#e4e7ea"
_LETTERS = {
    "labelColor": _INK, "titleColor": _FAINT, "labelFontSize": 13, "titleFontSize": 13, "titleFontWeight": "normal",
}  # fmt: skip
_INKS = ("white", "black", _FAINT)
# Viridis is as far from black as from white (in WCAG contrast) at this value.
_DARK_TEXT_FROM = 45

_SEEDS = ["#2f7bd6", "#c2630c", "#17875f", "#b3508a", "#7a6ff0", "#868e96"]
"""Told apart with any kind of colour vision, and at least 3 : 1 on white and on a dark page."""


def map_chart(
    summary: Summary, unlearned: Collection[Cell] = (), numbers: Mapping[Cell, int] | None = None
) -> alt.ConcatChart:
    """Return one heat map of mean Utility x Healed per method: discovery rate by regularity.

    All share one scale from 0 to 100 %. Cells without a value are grey with a cross.

    Args:
        summary: what is shown.
        unlearned: cells whose original model had not learned the corruption; they get a mark.
        numbers: of the cells, for a page that is asked about one; such a map has no title, and axes on each heat map,
            since the page chooses how many stand in a row.
    """
    width = max(_LEAST_WIDTH, _CELL_WIDTH * len(summary.discovery_labels))
    per_row = max(1, min(_MOST_COLUMNS, _WIDTH // (width + _GAP)))
    # As few rows as fit, then as even as possible: nine methods make 3 x 3, not 4 + 4 + 1.
    rows = math.ceil(len(summary.method) / per_row)
    columns = math.ceil(len(summary.method) / rows)
    on_page = numbers is not None
    panels = [
        _panel(
            summary,
            method,
            width,
            [_tile(summary, (method, *place), unlearned, numbers or {}) for place in summary.places],
            leftmost=on_page or position % columns == 0,
            lowest=on_page or position + columns >= len(summary.method),
            titled=not on_page,
        )
        for position, method in enumerate(summary.method)
    ]
    if on_page:
        return alt.ConcatChart(concat=panels, columns=columns, spacing=_GAP)
    # Flush bounds line the tiles up; the headings then need their room from the spacing.
    spacing = {"row": _GAP + _HEADING, "column": _GAP}
    title = alt.TitleParams(
        text="Utility × Healed",
        subtitle=_subtitle(summary, unlearned),
        anchor="start",
        fontSize=20,
        subtitleFontSize=14,
        offset=18,
    )
    chart = alt.ConcatChart(concat=panels, columns=columns, spacing=spacing, bounds="flush", title=title)
    made: alt.ConcatChart = (
        chart.configure(font="Helvetica, Arial, sans-serif", background="white", padding=16)
        .configure_view(stroke=None)
        .configure_title(color=_INK, subtitleColor=_FAINT)
        .configure_axis(**_LETTERS, domain=False, ticks=False, labelPadding=6)
        .configure_legend(**_LETTERS)
    )
    return made


def _panel(
    summary: Summary,
    method: str,
    width: int,
    values: Sequence[Mapping[str, Any]],
    *,
    leftmost: bool,
    lowest: bool,
    titled: bool,
) -> alt.LayerChart:
    rows, columns = summary.regularity_labels, summary.discovery_labels
    gap = alt.Scale(paddingInner=2 / _CELL_HEIGHT, paddingOuter=1 / _CELL_HEIGHT)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "discovery:O",
            sort=list(columns.values()),
            title="corrupted examples known" if lowest and titled else None,
            axis=alt.Axis(labels=lowest, labelAngle=0, domain=False, ticks=False),
            scale=gap,
        ),
        y=alt.Y(
            "regularity:O",
            sort=list(rows.values())[::-1],
            title=None,
            axis=alt.Axis(labels=leftmost, domain=False, ticks=False),
            scale=gap,
        ),
    )
    if values and "cell" in values[0]:
        base = base.encode(tooltip="cell:N")
    shade = alt.Color(
        "percent:Q",
        scale=alt.Scale(scheme="viridis", domain=[0, 100]),
        legend=alt.Legend(title="%", gradientLength=150, values=[0, 25, 50, 75, 100]),
    )
    filled = base.transform_filter("isValid(datum.percent)").encode(color=shade)
    layers = [base.transform_filter("!isValid(datum.percent)").mark_rect(color=_EMPTY), filled.mark_rect()]
    for ink in _INKS:
        # A layer each: a colour channel for the text would have to share the tiles' scale.
        text = base.transform_filter(f"datum.ink == '{ink}'").encode(text="label:N")
        layers.append(text.mark_text(fontSize=15, color=ink))
    return alt.LayerChart(layer=layers).properties(
        width=width,
        height=_CELL_HEIGHT * len(rows),
        title=alt.TitleParams(
            text=printable(method),
            subtitle=_caption(summary, method),
            anchor="start",
            frame="group",
            fontSize=15,
            subtitleFontSize=13,
            offset=6,
            limit=width + _GAP - 4,
        ),
    )


def _tile(
    summary: Summary, where: Cell, unlearned: Collection[Cell], numbers: Mapping[Cell, int]
) -> dict[str, Any]:
    cell = summary.cell.get(where)
    value = None if cell is None or not is_known(cell["uxh"]) else 100 * cell["uxh"]
    marks = ("!" if cell is not None and cell["failed"] else "") + (UNLEARNED if where in unlearned else "")
    tile = {
        "regularity": summary.regularity_labels[where[1]],
        "discovery": summary.discovery_labels[where[2]],
        "percent": value,
        "label": ABSENT if value is None else f"{value:.0f}{marks}",
        "ink": _FAINT if value is None else "white" if value < _DARK_TEXT_FROM else "black",
    }
    return tile | ({"cell": numbers.get(where)} if numbers else {})


def _caption(summary: Summary, method: str) -> str:
    row = summary.method[method]
    kind = "oracle, " if row["oracle"] else ""
    if not is_known(row["uxh"]):
        return f"{kind}no value"
    some = "" if row["cells"] == len(summary.places) else f" ({row['cells']} of {len(summary.places)} cells)"
    return f"{kind}mean {with_interval(row['uxh'], row['half_width'])}{some}"


def _subtitle(summary: Summary, unlearned: Collection[Cell]) -> str:
    valued = summary.cells["uxh"].notna()
    parts = [
        printable(summary.data),
        printable(summary.model),
        "1 seed" if len(summary.seeds) == 1 else f"mean of {counted(len(summary.seeds), 'seed')}",
    ]
    if any(is_known(row["half_width"]) for row in summary.method.values()):
        parts.append("± 95 % t-interval of a mean")
    if valued.sum() < len(summary.method) * len(summary.places):
        parts.append(f"{ABSENT} failed or not run")
    if (valued & (summary.cells["failed"] > 0)).any():
        parts.append("! some seeds failed")
    if unlearned:
        parts.append(f"{UNLEARNED} original model had not learned the corruption")
    return ", ".join(parts)


def curves_chart() -> alt.FacetChart:
    """Return one small chart for each logged quantity, a line for each seed, by row of the log; without data."""
    lines = (
        alt.Chart()
        .mark_line(point=True)
        .encode(
            x=alt.X("row:Q", title="row of the log", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "seed:N", title="seed", scale=alt.Scale(range=_SEEDS), legend=alt.Legend(orient="top")
            ),
            tooltip=["quantity:N", "seed:N", "row:Q", "value:Q"],
        )
        .properties(width=260, height=110)
    )
    made: alt.FacetChart = lines.facet(
        facet=alt.Facet(
            "quantity:N", title=None, header=alt.Header(labelAnchor="start", labelFontWeight="bold")
        ),
        columns=2,
        data=alt.NamedData(name="log"),
    ).resolve_scale(y="independent")
    return made


def write_chart(chart: Any, path: Path) -> Path:
    """Write ``chart`` as SVG or PDF, as the suffix of ``path`` says, whole or not at all; needs no network.

    Raises:
        StoreError: the file cannot be written.
    """
    form = path.suffix[1:]
    made = io.StringIO() if form == "svg" else io.BytesIO()
    chart.save(made, format=form)
    found = made.getvalue()
    return write_output(path, found.encode() if isinstance(found, str) else found, "figure")


def write_figures(records: Iterable[Record], folder: Path, learned: Mapping[str, float]) -> list[Path]:
    """Write the map and the accuracy / cost front of every sweep on the map as SVG and PDF; return the paths.

    Raises:
        StoreError: a file cannot be written.
    """
    written = []
    for sweep in sort_into_sweeps(records):
        if not sweep.on_map:
            continue
        summary = sweep.summary
        charts: dict[str, Any] = {"map": map_chart(summary, not_learned(sweep.records, learned))}
        if any(len(front(summary, cost)) for cost in COSTS):
            charts["front"] = fronts_chart(summary)
        written += [
            write_chart(chart, folder / f"{name}-{sweep.slug}.{form}")
            for form in ("svg", "pdf")
            for name, chart in charts.items()
        ]
    return written
