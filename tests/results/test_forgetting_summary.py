from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from expunge.errors import InvalidInput
from expunge.results.frame import measurements
from expunge.results.summary import summarise_forgetting
from expunge.results.terminal import forgetting_tables
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
    (found,) = summarise_forgetting(measurements(RECORDS)).values()
    # seed 0: (0.1 + 0.1) / 2; seed 1: (0 + 0.4) / 2; what the reference lacks does not count
    gap = found.loc["natmu", "average_gap"]
    assert (gap["mean"], gap["n"]) == (pytest.approx(0.15), 2)
    assert math.isnan(found.loc["retrain", ("average_gap", "mean")])
    assert list(found["failed"]) == [0, 0, 1]
    # t(0.975, 1 degree of freedom) = 12.7062
    assert gap["half_width"] == pytest.approx(12.7062 * math.sqrt(0.005) / math.sqrt(2), rel=1e-4)


def test_table_starts_with_the_reference() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in forgetting_tables(measurements(RECORDS)):
        console.print(table)
    text = console.export_text()
    assert "Forget random share=0.1, %" in text
    assert text.index("retrain") < text.index("natmu") < text.index("salun (1 failed)")
    assert "15.0±63.5" in text


def test_no_records() -> None:
    with pytest.raises(InvalidInput, match="no records of forgetting tasks"):
        summarise_forgetting(measurements([]))
