from __future__ import annotations

import random
from pathlib import Path

import pytest
from report_records import make

from expunge.results.charts import write_chart
from expunge.results.frame import measurements
from expunge.results.fronts import COSTS, front, front_chart, fronts_chart
from expunge.results.summary import Summary
from expunge.results.summary import summarise as summarise_table
from expunge.store.record import Record


def summarise(records: list[Record]) -> Summary:
    return summarise_table(measurements(records))


def test_the_front_against_a_slow_loop() -> None:
    draw = random.Random(1)
    records = [make(method=f"m{number}", uxh=draw.random(), seconds=draw.random()) for number in range(30)]
    records += [make(method="m30", uxh=records[3].uxh, seconds=records[3].seconds)]  # an equal is no better
    points = list(front(summarise(records), "seconds").itertuples())
    assert [point.cost for point in points] == sorted(point.cost for point in points)
    for point in points:
        better = [
            other
            for other in points
            if (other.cost < point.cost and other.uxh >= point.uxh)
            or (other.cost <= point.cost and other.uxh > point.uxh)
        ]
        assert point.kind == ("beaten" if better else "on the front")


def test_who_stays_out() -> None:
    records = [
        make(method="none", uxh=0.9, seconds=0.0),
        make(method="ideal", oracle=True, uxh=1.0, seconds=0.1),
        make(method="plain", uxh=0.5, seconds=1.0),
        make(method="free", uxh=0.4, seconds=None),
        make(method="half", uxh=0.9, seconds=0.1),
        *(make(method=name, regularity=0.5, uxh=0.5, seconds=1.0) for name in ("none", "ideal", "plain")),
        make(method="free", regularity=0.5, uxh=0.5),
        make(method="half", regularity=0.5, status="failed"),
    ]
    assert front(summarise(records), "seconds")["kind"].to_dict() == {
        "ideal": "oracle",
        "plain": "on the front",
    }


@pytest.mark.parametrize("costs", [[0.0, 10.0, 5000.0], [3.0, 40.0, 900.0], [0.0], [7.0], [1000.0]])
def test_every_point_is_on_the_axis(costs: list[float]) -> None:
    records = [make(method=f"m{cost}", uxh=0.5, seconds=cost, sample_gradients=int(cost)) for cost in costs]
    chart = front_chart(summarise(records), "sample_gradients").to_dict()
    axis = chart["layer"][0]["encoding"]["x"]
    low, high = axis["scale"]["domain"]
    assert all(low <= cost <= high for cost in costs)
    assert low < high
    assert axis["scale"]["type"] == ("symlog" if 0.0 in costs else "log")
    assert all(low <= tick <= high for tick in axis["axis"]["values"])


def test_figures_are_written(tmp_path: Path) -> None:
    summary = summarise(
        [make(uxh=0.5, seconds=1.0, sample_gradients=0), make(method="a<b", uxh=0.4, seconds=0.5)]
    )
    write_chart(fronts_chart(summary), tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text(encoding="utf-8")
    assert "seconds per run" in text
    assert "a&lt;b" in text
    assert set(COSTS) == {"seconds", "sample_gradients"}
    write_chart(fronts_chart(summary), tmp_path / "front.pdf")
    assert (tmp_path / "front.pdf").read_bytes().startswith(b"%PDF")
