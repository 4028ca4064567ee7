from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from expunge.errors import InvalidInput
from expunge.report.forgetting import forgetting_tables, summarise_forgetting
from expunge.report.wording import with_interval
from expunge.statistics import mean_interval
from expunge.store.record import Record


def record(method: str, seed: int, status: str = "done", **metrics: float) -> Record:
    values: dict[str, Any] = {
        "key": f"{method}{seed}{status}",
        "status": status,
        "data": "digits",
        "task": "random",
        "task_settings": {"seed": seed, "share": 0.1},
        "model": "mlp",
        "method": method,
        "seed": seed,
        "metrics": metrics,
        "seconds": 2.0,
    }
    return Record(**values)


RECORDS = [
    record("retrain", 0, forget_accuracy=0.9, entropy_attack=0.5),
    record("retrain", 1, forget_accuracy=0.8, entropy_attack=0.5),
    record("natmu", 0, forget_accuracy=0.8, entropy_attack=0.6, remaining_test_accuracy=0.7),
    record("natmu", 1, forget_accuracy=0.8, entropy_attack=0.9),
    record("salun", 0, status="failed"),
]


def test_average_gap_is_paired_by_seed() -> None:
    found = {summary.method: summary for summary in summarise_forgetting(RECORDS)}
    # seed 0: (0.1 + 0.1) / 2; seed 1: (0 + 0.4) / 2; what the reference lacks does not count
    gap = found["natmu"].values["average_gap"]
    assert gap.mean == pytest.approx(0.15)
    assert "average_gap" not in found["retrain"].values
    assert found["salun"].failed == 1
    # t(0.975, 1 degree of freedom) = 12.7062
    assert gap.half_width == pytest.approx(12.7062 * math.sqrt(0.005) / math.sqrt(2), rel=1e-4)


def test_interval() -> None:
    assert with_interval(mean_interval([0.5]), "") == "50.0"
    # t(0.975, 2) = 4.30265, s = 0.1
    assert with_interval(mean_interval([0.1, 0.2, 0.3]), "") == "20.0±24.8"


def test_table_starts_with_the_reference() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in forgetting_tables(RECORDS):
        console.print(table)
    text = console.export_text()
    assert "Forget random share=0.1, %" in text
    assert text.index("retrain") < text.index("natmu") < text.index("salun (1 failed)")
    assert "15.0±63.5" in text


def test_no_records() -> None:
    with pytest.raises(InvalidInput, match="no records of forgetting tasks"):
        summarise_forgetting([])
