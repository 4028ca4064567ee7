from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import report_records

from expunge.errors import StoreError
from expunge.results.tables import CSV_FIELDS, write_csv

make = partial(report_records.make, regularity=0.5, seed=3)


def test_exact_text(tmp_path: Path) -> None:
    records = [
        make(
            healed=14 / 15,
            healed_known=1.0,
            healed_unknown=0.0,
            utility=0.25,
            uxh=0.1 + 0.2,
            seconds=1234567.5,
            sample_gradients=10**12,
            task_settings={"regularity": 0.5, "swap_classes": (3, 5)},
        ),
        make(method="none", regularity=1.0, discovery=1 / 3, seed=2**40, status="failed", error="a, b"),
        make(method="my.pack,age:Thing", regularity=0, asr=4e-6, seconds=1e-7, status="skipped"),
        make(
            method="natmu",
            task="random",
            regularity=None,
            discovery=None,
            task_settings={"share": 0.1},
            metrics={"forget_accuracy": 0.5, "entropy_attack": None},
        ),
        make(method="natmu", task="classes", regularity=None, discovery=None, metrics={"a_name": 1}),
    ]
    write_csv(iter(records), tmp_path / "out" / "results.csv")
    assert (tmp_path / "out" / "results.csv").read_bytes().decode() == (
        "method,regularity,discovery,seed,healed,healed_known,healed_unknown,utility,uxh,asr,seconds,"
        "sample_gradients,status,data,model,task,task_settings,unlearning_seed,a_name,entropy_attack,forget_accuracy\n"
        "rem,0.5,0.1,3,0.933333,1,0,0.25,0.3,,1234567.5,1000000000000,done,digits,resnet9,corruption,"
        '"{""regularity"": 0.5, ""swap_classes"": [3, 5]}",0,,,\n'
        "none,1,0.333333,1099511627776,,,,,,,,,failed,digits,resnet9,corruption,{},0,,,\n"
        '"my.pack,age:Thing",0,0.1,3,,,,,,0.000004,0,,skipped,digits,resnet9,corruption,{},0,,,\n'
        'natmu,,,3,,,,,,,,,done,digits,resnet9,random,"{""share"": 0.1}",0,,,0.5\n'
        "natmu,,,3,,,,,,,,,done,digits,resnet9,classes,{},0,1,,\n"
    )


def test_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    records = [make(seed=seed, healed=seed / 997, utility=None) for seed in range(20)]
    write_csv(records, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_FIELDS
    for record, row in zip(records, rows, strict=True):
        assert int(row["seed"]) == record.seed
        assert float(row["healed"]) == pytest.approx(record.healed, abs=5e-7)
        assert row["utility"] == ""


def test_text_that_a_spreadsheet_would_run_is_written_as_text(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_csv([make(method="=1+1", metrics={"gap": -0.5})], path)
    (row,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    assert (row["method"], row["gap"]) == ("'=1+1", "-0.5")


def test_replaced_whole_and_nothing_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_csv([make(seed=seed) for seed in range(50)], path)
    write_csv([], path)
    assert path.read_text() == ",".join(CSV_FIELDS) + "\n"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_while_reading_records_keeps_the_old_file(tmp_path: Path) -> None:
    def broken() -> Any:
        yield make()
        raise RuntimeError("stop")

    path = tmp_path / "results.csv"
    write_csv([make()], path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stop"):
        write_csv(broken(), path)
    assert path.read_bytes() == before


def test_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"results .*results\.csv cannot be written: .*; choose a path"):
        write_csv([make()], tmp_path / "file" / "results.csv")
