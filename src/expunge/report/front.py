"""Accuracy against cost, and the methods that no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from expunge.report.summary import BASELINE, Summary, printable

COSTS = {"seconds": "seconds per run", "sample_gradients": "sample gradients per run"}
"""Field of a method's summary -> title of the axis."""

_LABEL = {"seconds": "format(datum.value, '~g')", "sample_gradients": "format(datum.value, '~s')"}
_WIDTH, _HEIGHT = 380, 300
_ACCENT, _PLAIN = "#2f7bd6", "#868e96"  # both at least 3 : 1 on white and on a dark page
_KINDS = ("on the front", "beaten", "oracle")


@dataclass(frozen=True)
class Point:
    """One method by cost and quality.

    Args:
        method: name of the method.
        cost: mean over its cells, in the unit of its axis.
        uxh: mean Utility x Healed, a fraction.
        kind: "on the front", "beaten" by a method that is no worse in both and better in one, or "oracle".
        cells: number of cells of the mean.
    """

    method: str
    cost: float
    uxh: float
    kind: str
    cells: int


def front(summary: Summary, cost: str) -> list[Point]:
    """Return a point for each method with a value, by rising cost.

    The Pareto front is taken over the methods that anyone can run: oracles are shown and stay out of it.
    The method that does nothing is left out, since it costs nothing and heals nothing. So is a method
    that lacks cells, whose mean is of an easier map.
    """
    filled = max((method.cells for method in summary.methods if not method.oracle), default=0)
    methods = [
        (method, getattr(method, cost))
        for method in summary.methods
        if method.method != BASELINE and method.uxh is not None and (method.oracle or method.cells == filled)
    ]
    taken = [(method, float(price)) for method, price in methods if price is not None]
    open_to_all = [(price, method.uxh or 0.0) for method, price in taken if not method.oracle]
    points = []
    for method, price in taken:
        uxh = method.uxh or 0.0
        beaten = any(
            other_price <= price and other >= uxh and (other_price < price or other > uxh)
            for other_price, other in open_to_all
        )
        kind = "oracle" if method.oracle else "beaten" if beaten else "on the front"
        points.append(Point(method.method, price, uxh, kind, method.cells))
    return sorted(points, key=lambda point: (point.cost, -point.uxh, point.method))


def front_chart(summary: Summary, cost: str) -> alt.LayerChart:
    """Return mean Utility x Healed against ``cost``, one of :data:`COSTS`, on a logarithmic axis.

    The axis is linear near 0, because some methods compute no gradients.
    """
    points = front(summary, cost)
    costs = [point.cost for point in points]

    def in_right_half(point: Point) -> bool:
        """Whether a point is in the right half, where its name would run out of the chart."""
        return 2 * _position(point.cost, costs) > 1

    values = [
        {
            "method": printable(point.method),
            "cost": float(f"{point.cost:.4g}"),
            "percent": round(100 * point.uxh, 2),
            "kind": point.kind,
            "left": "" if point.kind == "beaten" or not in_right_half(point) else printable(point.method),
            "right": "" if point.kind == "beaten" or in_right_half(point) else printable(point.method),
        }
        for point in points
    ]
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
    left = base.transform_filter("datum.left != ''").encode(text="left:N")
    right = base.transform_filter("datum.right != ''").encode(text="right:N")
    chart = alt.LayerChart(
        layer=[
            line,
            marks,
            left.mark_text(align="right", baseline="bottom", dx=-4, dy=-6, fontSize=12),
            right.mark_text(align="left", baseline="bottom", dx=4, dy=-6, fontSize=12),
        ]
    )
    made: alt.LayerChart = chart.properties(width=_WIDTH, height=_HEIGHT)
    return made


def fronts_chart(summary: Summary) -> alt.HConcatChart:
    """Return the front against every cost side by side, for a file."""
    charts = [front_chart(summary, cost) for cost in COSTS if front(summary, cost)]
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
