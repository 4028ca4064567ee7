"""Accuracy against cost: the Pareto front, and its chart for page and paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import altair as alt
import pandas as pd

from expunge.results.summary import BASELINE, Summary
from expunge.results.wording import printable

COSTS = {"seconds": "seconds per run", "sample_gradients": "sample gradients per run"}
"""Measure -> title of its axis."""
_LABEL = {"seconds": "format(datum.value, '~g')", "sample_gradients": "format(datum.value, '~s')"}
_ACCENT, _PLAIN = "#2f7bd6", "#868e96"  # both at least 3 : 1 on white and on a dark page
_KINDS = ("on the front", "beaten", "oracle")
_SIDES: tuple[tuple[str, Literal["left", "right"], int], ...] = (("left", "right", -4), ("right", "left", 4))
"""Side of a point that its name stands on, alignment of the name, pixels between them."""


def front(summary: Summary, cost: str) -> pd.DataFrame:
    """Return ``cost``, ``uxh`` and ``kind`` of each method with a value, by rising cost.

    ``kind``: "on the front", "beaten" by a method that is no worse in both and better in one, or "oracle". The Pareto
    front is taken over the methods that anyone can run: oracles are shown and stay out of it. The method that does
    nothing is left out, since it costs nothing and heals nothing. So is a method that lacks cells, whose mean is of an
    easier map.
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
    scale, ticks, middle = _axis(points["cost"].to_list())
    values = [
        {
            "method": printable(row.Index),
            "cost": float(f"{row.cost:.4g}"),
            "percent": round(100 * row.uxh, 2),
            "kind": row.kind,
            "left": "",
            "right": "",
            # In the right half a name to its right would run out of the chart.
            "left" if row.cost > middle else "right": "" if row.kind == "beaten" else printable(row.Index),
        }
        for row in points.itertuples()
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "cost:Q",
            title=COSTS[cost],
            scale=scale,
            # The axis would choose one unit for all ticks, and write 1,000 as "0M".
            axis=alt.Axis(values=ticks, labelExpr=_LABEL[cost], labelFlush=False),
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
    return alt.LayerChart(layer=[line, marks, *names]).properties(width=380, height=300)


def fronts_chart(summary: Summary) -> alt.HConcatChart:
    """Return the front against every cost side by side, for a file."""
    charts = [front_chart(summary, cost) for cost in COSTS if len(front(summary, cost))]
    title = f"Utility × Healed against cost: {printable(summary.data)}, {printable(summary.model)}"
    made: alt.HConcatChart = (
        alt.hconcat(*charts, title=title)
        .configure(font="Helvetica, Arial, sans-serif", background="white", padding=16)
        .configure_title(anchor="start", fontSize=16)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#e4e7ea")
    )
    return made


def _axis(costs: Sequence[float]) -> tuple[alt.Scale, list[float], float]:
    """Return the scale between the powers of ten around the costs, its ticks, and the cost in its middle."""
    least = min((cost for cost in costs if cost > 0), default=1.0)
    first, last = math.floor(math.log10(least)), math.floor(math.log10(max(*costs, least))) + 1
    high = 10.0**last
    if min(costs) > 0:
        low = 10.0**first
        scale = alt.Scale(type="log", domain=[low, high])
        return scale, [10.0**exponent for exponent in range(first, last + 1)], math.sqrt(low * high)
    scale = alt.Scale(type="symlog", constant=least, domain=[0, high])
    powers = [10.0**exponent for exponent in range(math.ceil(math.log10(least)), last + 1)]
    return scale, [0.0, *powers], least * (math.sqrt(1 + high / least) - 1)
