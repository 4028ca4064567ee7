"""The map, the accuracy / cost front and the learning curves: one specification each, for page and paper."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import altair as alt
import pandas as pd

from expunge.errors import InvalidInput
from expunge.results.frame import measurements
from expunge.results.summary import BASELINE, Summary, summarise
from expunge.results.sweeps import sort_into_sweeps
from expunge.results.wording import counted, is_known, percent, printable
from expunge.store.atomic import write_output
from expunge.store.record import LEARNED_ENOUGH, Record

FORMATS = ("svg", "png", "pdf")
ABSENT, UNLEARNED = "×", "°"
"""In place of a value that is missing, and behind one whose first model had not learned the corruption."""
COSTS = {"seconds": "seconds per run", "sample_gradients": "sample gradients per run"}
"""Measure -> title of its axis."""
Chart = alt.ConcatChart | alt.HConcatChart | alt.LayerChart
Cell = tuple[str, float, float]
"""Method, regularity, discovery."""

# Pixels. Narrower heat maps than the least width would cut the names above them.
_CELL_WIDTH, _CELL_HEIGHT, _LEAST_WIDTH, _GAP, _HEADING = 66, 38, 190, 24, 46
_WIDTH, _MOST_COLUMNS = 840, 4  # of all heat maps in a row, and their number
_INK, _FAINT = "#1f2328", "#59636e"
_EMPTY = "#e4e7ea"
_INKS = ("white", "black", _FAINT)
# Viridis is as far from black as from white (in WCAG contrast) at this value.
_DARK_TEXT_FROM = 45

_LABEL = {"seconds": "format(datum.value, '~g')", "sample_gradients": "format(datum.value, '~s')"}
_ACCENT, _PLAIN = "#2f7bd6", "#868e96"  # both at least 3 : 1 on white and on a dark page
_KINDS = ("on the front", "beaten", "oracle")
_SIDES: tuple[tuple[str, Literal["left", "right"], int], ...] = (("left", "right", -4), ("right", "left", 4))
"""Side of a point that its name stands on, alignment of the name, pixels between them."""
_SEEDS = ["#2f7bd6", "#c2630c", "#17875f", "#b3508a", "#7a6ff0", "#868e96"]
"""Told apart with any kind of colour vision, and at least 3 : 1 on white and on a dark page."""


# ---- map ----


def map_chart(
    summary: Summary, unlearned: Collection[Cell] = (), numbers: Mapping[Cell, int] | None = None
) -> alt.ConcatChart:
    """Return one heat map of mean Utility x Healed per method: discovery rate by regularity.

    All share one scale from 0 to 100 %. Cells without a value are grey with a cross.

    Args:
        summary: what is shown.
        unlearned: cells whose first model had not learned the corruption; they get a mark.
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
    # Flush bounds line the tiles up; the headings then need their room from the spacing.
    spacing = {"row": _GAP + _HEADING, "column": _GAP}
    if on_page:
        made: alt.ConcatChart = alt.ConcatChart(concat=panels, columns=columns, spacing=_GAP)
        return made
    chart: alt.ConcatChart = (
        alt.ConcatChart(
            concat=panels,
            columns=columns,
            spacing=spacing,
            bounds="flush",
            title=alt.TitleParams(
                text="Utility × Healed",
                subtitle=_subtitle(summary, unlearned),
                anchor="start",
                fontSize=20,
                subtitleFontSize=14,
                offset=18,
            ),
        )
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
    spread = f" ±{percent(row['half_width'])}" if is_known(row["half_width"]) else ""
    some = "" if row["cells"] == len(summary.places) else f" ({row['cells']} of {len(summary.places)} cells)"
    return f"{kind}mean {percent(row['uxh'])}{spread}{some}"


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
        parts.append(f"{UNLEARNED} first model had not learned the corruption")
    return ", ".join(parts)


# ---- front ----


def front(summary: Summary, cost: str) -> pd.DataFrame:
    """Return ``cost``, ``uxh`` and ``kind`` of each method with a value, by rising cost.

    ``kind``: "on the front", "beaten" by a method that is no worse in both and better in one, or "oracle". The Pareto
    front is taken over the methods that anyone can run: oracles are shown and stay out of it. The method that does
    nothing is left out, since it costs nothing and heals nothing. So is a method that lacks cells, whose mean is of an
    easier map.

    Args:
        summary: of a sweep.
        cost: one of :data:`COSTS`.
    """
    methods = summary.methods
    filled = methods.loc[~methods["oracle"], "cells"].max()
    whole = methods["oracle"] | (methods["cells"] == filled)
    shown = methods[(methods.index != BASELINE) & methods["uxh"].notna() & methods[cost].notna() & whole]
    open_to_all = shown[~shown["oracle"]]
    kinds = []
    for row in shown.itertuples():
        price, uxh = getattr(row, cost), row.uxh
        no_worse = open_to_all[(open_to_all[cost] <= price) & (open_to_all["uxh"] >= uxh)]
        beaten = ((no_worse[cost] < price) | (no_worse["uxh"] > uxh)).any()
        kinds.append("oracle" if row.oracle else "beaten" if beaten else "on the front")
    found = pd.DataFrame({"cost": shown[cost], "uxh": shown["uxh"], "kind": kinds}, index=shown.index)
    return found.sort_index().sort_values(["cost", "uxh"], ascending=[True, False], kind="stable")


def front_chart(summary: Summary, cost: str) -> alt.LayerChart:
    """Return mean Utility x Healed against ``cost``, one of :data:`COSTS`, on a logarithmic axis.

    The axis is linear near 0, because some methods compute no gradients.
    """
    points = front(summary, cost)
    costs = points["cost"].to_list()
    values = []
    for method, point in points.iterrows():
        # In the right half a name would run out of the chart.
        side = "left" if 2 * _position(point["cost"], costs) > 1 else "right"
        name = printable(method)
        values.append(
            {
                "method": name,
                "cost": float(f"{point['cost']:.4g}"),
                "percent": round(100 * point["uxh"], 2),
                "kind": point["kind"],
                "left": "",
                "right": "",
                side: "" if point["kind"] == "beaten" else name,
            }
        )
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "cost:Q",
            title=COSTS[cost],
            scale=_scale(costs),
            # The axis would choose one unit for all ticks, and write 1,000 as "0M".
            axis=alt.Axis(values=_ticks(costs), labelExpr=_LABEL[cost], labelFlush=False),
        ),
        y=alt.Y("percent:Q", title="mean Utility × Healed, %", scale=alt.Scale(domain=[0, 100])),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("percent:Q", title="mean Utility × Healed, %", format=".1f"),
            alt.Tooltip("cost:Q", title=COSTS[cost], format=",.4~g"),
            alt.Tooltip("kind:N", title="Pareto front"),
        ],
    )
    line = base.transform_filter("datum.kind == 'on the front'").mark_line(
        interpolate="step-after", color=_ACCENT, strokeWidth=1.5, strokeDash=[4, 3]
    )
    marks = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=list(_KINDS), range=[_ACCENT, _PLAIN, _PLAIN]),
            legend=alt.Legend(orient="bottom", direction="horizontal"),
        ),
        shape=alt.Shape(
            "kind:N", title=None, scale=alt.Scale(domain=list(_KINDS), range=["circle", "circle", "diamond"])
        ),
    )
    names = [
        base.transform_filter(f"datum.{side} != ''")
        .encode(text=f"{side}:N")
        .mark_text(align=align, baseline="bottom", dx=shift, dy=-6, fontSize=12)
        for side, align, shift in _SIDES
    ]
    made: alt.LayerChart = alt.LayerChart(layer=[line, marks, *names]).properties(width=380, height=300)
    return made


def fronts_chart(summary: Summary) -> alt.HConcatChart:
    """Return the front against every cost side by side, for a file."""
    charts = [front_chart(summary, cost) for cost in COSTS if len(front(summary, cost))]
    made: alt.HConcatChart = (
        alt.hconcat(
            *charts,
            title=f"Utility × Healed against cost: {printable(summary.data)}, {printable(summary.model)}",
        )
        .configure(font="Helvetica, Arial, sans-serif", background="white", padding=16)
        .configure_title(anchor="start", fontSize=16)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#e4e7ea")
    )
    return made


def _scale(costs: Sequence[float]) -> alt.Scale:
    low, high = _range(costs)
    if low > 0:
        return alt.Scale(type="log", domain=[low, high])
    return alt.Scale(type="symlog", constant=_least(costs), domain=[0, high])


def _ticks(costs: Sequence[float]) -> list[float]:
    low, high = _range(costs)
    first = math.floor(math.log10(low)) if low > 0 else math.ceil(math.log10(_least(costs)))
    powers = [10.0**exponent for exponent in range(first, round(math.log10(high)) + 1)]
    return powers if low > 0 else [0.0, *powers]


def _position(cost: float, costs: Sequence[float]) -> float:
    """Place of ``cost`` on the axis, from 0 to 1."""
    low, high = _range(costs)
    if low > 0:
        return math.log(cost / low) / math.log(high / low)
    return math.log1p(cost / _least(costs)) / math.log1p(high / _least(costs))


def _range(costs: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around the costs; from 0 where one is 0."""
    high = 10.0 ** (math.floor(math.log10(max(max(costs), _least(costs)))) + 1)
    return (10.0 ** math.floor(math.log10(_least(costs))) if min(costs) > 0 else 0.0), high


def _least(costs: Sequence[float]) -> float:
    return min((cost for cost in costs if cost > 0), default=1.0)


# ---- learning curves ----


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
    chart: alt.FacetChart = lines.facet(
        facet=alt.Facet(
            "quantity:N", title=None, header=alt.Header(labelAnchor="start", labelFontWeight="bold")
        ),
        columns=2,
        data=alt.NamedData(name="log"),
    ).resolve_scale(y="independent")
    return chart


# ---- files ----


def write_map(records: Iterable[Record], path: str | Path, unlearned: Collection[Cell] = ()) -> None:
    """Write :func:`map_chart` of one sweep; see :func:`write_chart`.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    write_chart(map_chart(summarise(measurements(records)), unlearned), path)


def write_chart(chart: Chart, path: str | Path) -> Path:
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
    if suffix == "svg":
        text = io.StringIO()
        chart.save(text, format="svg")
        return write_output(path, text.getvalue().encode("utf-8"), "figure")
    kind: Literal["png", "pdf"] = "png" if suffix == "png" else "pdf"
    binary = io.BytesIO()
    chart.save(binary, format=kind, scale_factor=2 if kind == "png" else 1)
    return write_output(path, binary.getvalue(), "figure")


def write_figures(records: Iterable[Record], folder: Path, learned: Mapping[str, float]) -> list[Path]:
    """Write the map and the accuracy / cost front of every sweep as SVG and PDF; return the paths.

    Args:
        records: of one store; forgetting tasks have no figure.
        folder: made if missing.
        learned: key of a first model -> share of the corruption it had learned.

    Raises:
        StoreError: a file cannot be written.
    """
    written = []
    for sweep in sort_into_sweeps(records):
        if not sweep.corruption:
            continue
        summary = summarise(measurements(sweep.corruption))
        charts: dict[str, Chart] = {"map": map_chart(summary, set(not_learned(sweep.corruption, learned)))}
        if any(len(front(summary, cost)) for cost in COSTS):
            charts["front"] = fronts_chart(summary)
        written += [
            write_chart(chart, folder / f"{name}-{sweep.slug}.{form}")
            for form in ("svg", "pdf")
            for name, chart in charts.items()
        ]
    return written


def not_learned(records: Iterable[Record], learned: Mapping[str, float]) -> dict[Cell, float]:
    """Return cell -> the least share of the corruption that its first models had learned, where that is too little."""
    found: dict[Cell, float] = {}
    for record in records:
        share = learned.get(record.model_key, 1.0)
        if share < LEARNED_ENOUGH and record.regularity is not None and record.discovery is not None:
            where = (record.method, record.regularity, record.discovery)
            found[where] = min(share, found.get(where, 1.0))
    return found
