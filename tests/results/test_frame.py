from __future__ import annotations

import math

from report_records import make

from expunge.results.frame import COLUMNS, measurements, task_text
from expunge.results.sweeps import sort_into_sweeps


def test_a_row_for_each_number() -> None:
    table = measurements(
        [make(uxh=0.5, asr=0.0, seconds=2.0, metrics={"mine": -3.0, "undefined": None})], "title"
    )
    assert tuple(table.columns) == COLUMNS
    assert table.set_index("measure")["value"].to_dict() == {
        "uxh": 0.5,
        "asr": 0.0,
        "seconds": 2.0,
        "mine": -3.0,
    }
    for name, value in {
        "run": 0,
        "key": "k",
        "sweep": "title",
        "data": "digits",
        "task": "corruption",
        "seed": 0,
    }.items():
        assert set(table[name]) == {value}


def test_what_stands_beside_a_number_is_a_column() -> None:
    metrics = {
        "js": {"value": 0.3, "retrained": 0.1, "floor": 0.02, "oracle": None, "low": 0.2, "high": 0.4},
        "kl_to_retrained": 0.7,
    }  # fmt: skip
    table = measurements([make(metrics=metrics)]).set_index("measure")
    assert set(table.index) == {"js", "kl_to_retrained"}
    js = table.loc["js"]
    assert [js[name] for name in ("value", "low", "high", "retrained", "floor")] == [0.3, 0.2, 0.4, 0.1, 0.02]
    assert math.isnan(js["oracle"])
    assert math.isnan(table.loc["kl_to_retrained", "retrained"])


def test_runs_without_numbers_have_a_row() -> None:
    table = measurements(
        [make(status="failed", uxh=0.9), make(status="skipped", seed=1), make(seed=2), make(seed=3, uxh=0.5)]
    )
    assert list(table["measure"]) == ["", "", "", "uxh"]
    assert list(table["status"]) == ["failed", "skipped", "done", "done"]
    assert list(table["run"]) == [0, 1, 2, 3]
    assert table["value"].notna().sum() == 1


def test_no_records() -> None:
    table = measurements([])
    assert len(table) == 0
    assert tuple(table.columns) == COLUMNS


def test_tasks_in_words() -> None:
    forgetting = make(
        task="classes", task_settings={"classes": [3, 1], "seed": 5}, regularity=None, discovery=None
    )
    assert task_text(forgetting) == "classes classes=3,1"
    indices = {"indices": list(range(99))}
    long = make(task="indices", task_settings=indices, task_key="0123456789", regularity=None, discovery=None)
    assert task_text(long) == "indices (01234567)"
    assert task_text(make()) == "corruption"
    (row,) = measurements([forgetting]).itertuples()
    assert row.task == "classes classes=3,1"
    assert math.isnan(row.regularity)


def test_a_sweep_has_its_table() -> None:
    (sweep,) = sort_into_sweeps([make(key="a", uxh=0.5), make(key="b", seed=1, uxh=0.7)])
    assert set(sweep.table["sweep"]) == {sweep.title}
    assert list(sweep.table["value"]) == [0.5, 0.7]
