"""The specification of the learning curves in a cell's panel; the page fills in the data."""

from __future__ import annotations

import altair as alt

_SEEDS = ["#2f7bd6", "#c2630c", "#17875f", "#b3508a", "#7a6ff0", "#868e96"]
"""Told apart with any kind of colour vision, and at least 3 : 1 on white and on a dark page."""


def curves_chart() -> alt.FacetChart:
    """Return one small chart for each logged quantity, a line for each seed, by row of the log."""
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
