"""The benchmark script that draws what each setting of a method is worth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from expunge.store.record import Record
from expunge.store.store import Store

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "settings_picture.py"


def record(number: int, method: str, gap: float, **settings: Any) -> Record:
    return Record(
        key=str(number), status="done", data="digits", task="random", model="mlp", method=method, seed=0,
        settings=settings, metrics={"accuracy_gaps": {"value": gap}},
    )  # fmt: skip


def drawn(folder: Path, records: list[Record]) -> subprocess.CompletedProcess[str]:
    with Store(folder / "store") as store:
        for one in records:
            store.database.add(one)
    command = [sys.executable, SCRIPT, folder / "store", "--out", folder / "out.svg"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_one_setting_at_a_time(tmp_path: Path) -> None:
    done = drawn(tmp_path, [
        record(0, "natmu", 0.15, lr=0.001, delta=-0.2), record(1, "natmu", 0.05, lr=0.01, delta=-0.2),
        record(2, "natmu", 0.12, lr=0.001, delta=0.0), record(3, "natmu", 0.01, lr=0.1, delta=0.0),
        record(4, "salun", 0.2, lr=0.1, keep=None),
    ])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "method,setting,value,percent",
        "natmu,delta,-0.2,15", "natmu,delta,0,12", "natmu,lr,0.001,15", "natmu,lr,0.01,5",
    ]  # fmt: skip
    assert "<svg" in (tmp_path / "out.svg").read_text(encoding="utf-8")


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    done = drawn(tmp_path, [record(0, "natmu", 0.15, lr=0.001)])
    assert done.returncode == 2
    assert "no setting of" in done.stderr
    assert not (tmp_path / "out.svg").exists()
