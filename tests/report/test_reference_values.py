from __future__ import annotations

from pathlib import Path

import pytest
from report_records import make

from expunge.report.export_tables import write_tables
from expunge.report.page import build_page
from expunge.report.reference_values import reference_rows
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
                "distance": value,
                "distance_retrained": 0.1,
                "distance_floor": 0.02 + 0.02 * seed,
                "alone": 1.0,
                **changed,
            },
        )
        for (seed, number), value in values.items()
    ]


TWO = {(0, 0): 0.2, (0, 1): 0.4, (1, 0): 0.5}


def test_each_number_beside_aim_and_floor() -> None:
    near, far = records("near", {(0, 0): 0.11, (1, 0): 0.08}), records("far", TWO)
    rows = reference_rows(far + near)
    assert [(row.measure, row.method) for row in rows] == [("distance", "near"), ("distance", "far")]
    found = rows[1]
    # The mean is over the training seeds, each by the mean of its unlearning seeds.
    assert found.value.mean == pytest.approx((0.3 + 0.5) / 2)
    assert found.value.n == 2
    assert found.aim == pytest.approx(0.1)
    assert found.gap == pytest.approx((0.1 + 0.3 + 0.4) / 3)
    assert found.floor == pytest.approx((0.02 + 0.02 + 0.04) / 3)
    assert (found.oracle, found.cells) == (None, 3)
    assert rows[0].gap == pytest.approx((0.01 + 0.02) / 2)


def test_what_is_not_defined() -> None:
    (row,) = reference_rows(records("rem", {(0, 0): 0.3}, distance_retrained=None, distance_floor=None))
    assert (row.aim, row.gap, row.floor) == (None, None, None)
    assert reference_rows([make(uxh=0.5, metrics={"alone": 1.0})]) == []


def test_page_and_tables(tmp_path: Path) -> None:
    found = records("near", {(0, 0): 0.11, (1, 0): 0.08}, distance_oracle=0.05) + records("far", TWO)
    page = build_page(found, {})
    assert "Beside the retrained model" in page
    assert page.count("in the floor") == 1
    assert ">oracle<" in page
    assert "Beside the retrained model" not in build_page([make(uxh=0.5)], {})
    write_tables(found, tmp_path)
    text = (tmp_path / "references-digits-resnet9.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "measure,method,mean,half_width,retrained,gap,floor,oracle,runs"
    assert len(text.splitlines()) == 3
