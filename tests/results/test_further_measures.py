from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from report_records import make
from rich.console import Console

from expunge.results.comparisons import further_measures
from expunge.results.frame import measurements
from expunge.results.page import build_page
from expunge.results.summary import summarise
from expunge.results.tables import write_tables
from expunge.results.terminal import further_table
from expunge.store.record import Record


def records(method: str, values: dict[tuple[int, int], float], **changed: object) -> list[Record]:
    """values[training seed, unlearning seed] -> value of "distance", whose aim is 0.1."""
    return [
        make(
            key=f"{method}{seed}{number}",
            method=method,
            seed=seed,
            training_seed=seed,
            unlearning_seed=number,
            uxh=0.5,
            metrics={
                "distance": {"value": value, "retrained": 0.1, "floor": 0.02 + 0.02 * seed, **changed},
                "alone": 1.0,
            },
        )
        for (seed, number), value in values.items()
    ]


TWO = {(0, 0): 0.2, (0, 1): 0.4, (1, 0): 0.5}


def rows_of(records: list[Record]) -> list[Any]:
    return list(further_measures(measurements(records)).itertuples())


def test_each_number_beside_the_retrained_models() -> None:
    near, far = records("near", {(0, 0): 0.11, (1, 0): 0.08}), records("far", TWO)
    rows = [row for row in rows_of(far + near) if row.measure == "distance"]
    assert [row.method for row in rows] == ["near", "far"]
    found = rows[1]
    # The mean is over the training seeds, each by the mean of its unlearning seeds.
    assert found.mean == pytest.approx((0.3 + 0.5) / 2)
    assert found.half_width == pytest.approx(12.7062 * 0.1, rel=1e-5)
    assert found.retrained == pytest.approx(0.1)
    assert found.gap == pytest.approx((0.1 + 0.3 + 0.4) / 3)
    assert found.floor == pytest.approx((0.02 + 0.02 + 0.04) / 3)
    assert (math.isnan(found.oracle), found.runs) == (True, 3)
    assert rows[0].gap == pytest.approx((0.01 + 0.02) / 2)


def test_what_is_not_defined() -> None:
    alone, distance = rows_of(records("rem", {(0, 0): 0.3}, retrained=None, floor=None))
    assert (alone.measure, alone.mean) == ("alone", 1.0)
    assert all(map(math.isnan, (distance.retrained, distance.gap, distance.floor, distance.half_width)))
    assert rows_of([make(uxh=0.5, seconds=1.0)]) == []


def test_page_and_tables(tmp_path: Path) -> None:
    found = records("near", {(0, 0): 0.11, (1, 0): 0.08}, oracle=0.05) + records("far", TWO)
    page = build_page(found, {})
    assert "Further measures" in page
    assert page.count("in the floor") == 1
    assert ">oracle</button>" in page
    assert "Further measures" not in build_page([make(uxh=0.5)], {})
    write_tables(found, tmp_path)
    text = (tmp_path / "references-digits-resnet9.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "measure,method,mean,half_width,retrained,gap,floor,oracle,runs"
    assert len(text.splitlines()) == 5  # near and far, distance and alone


def test_the_terminal_shows_them_too() -> None:
    found = records("[b]near", {(0, 0): 0.11, (1, 0): 0.08}) + records("far", TWO)
    table = further_table(measurements(found))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["distance", "[b]near", "0.095", "±0.19", "0.1", "0.015", "0.03", "2"] in lines
    assert ["far", "0.4", "±1.3", "0.1", "0.267", "0.0267", "3"] in lines
    assert further_table(measurements([make(uxh=0.5)])) is None
    # What the recalibrated columns of the map's table come from.
    assert further_table(measurements([make(uxh=0.5, metrics={"healed_recalibrated": 0.4})])) is None


def test_accuracies_on_the_map_are_further_measures() -> None:
    corruption = make(uxh=0.5, metrics={"retain_accuracy": 0.9})
    forgetting = make(task="classes", regularity=None, discovery=None, metrics={"retain_accuracy": 0.9})
    assert [row.measure for row in rows_of([corruption])] == ["retain_accuracy"]
    assert rows_of([forgetting]) == []


def test_a_measure_named_like_a_column_breaks_nothing() -> None:
    odd = make(uxh=0.5, metrics={"mean": 0.9, "failed": 0.1, "p": 0.2})
    assert [row.measure for row in rows_of([odd])] == ["failed", "mean", "p"]
    summary = summarise(measurements([odd]))
    assert (summary.method["rem"]["failed"], summary.method["rem"]["mean"]) == (0, 0.5)
    assert "Further measures" in build_page([odd], {})
