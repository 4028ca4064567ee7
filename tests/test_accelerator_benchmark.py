"""The benchmark for accelerators, on the CPU: what is to work the first time where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"


def run(out: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, SCRIPT, "--device", "cpu", "--quick", "--threads", "1", "--out", out, *options]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_part_writes_results_and_one_process_goes_on_where_another_was(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = run(out, "--seconds", "120", "--methods", "none,npo")
    assert [row for row in rows if "error" in row or "skipped" in row] == []
    parts = {part: [row for row in rows if row["part"] == part] for part in ("equality", "speed", "grid")}
    # the device is the CPU here: both runs are the same, and what a last bit does shows that something is compared
    assert [(row["what"], row["weights_norm"], row["logits_max"]) for row in parts["equality"]] == [
        ("none", 0, 0), ("npo", 0, 0),
    ]  # fmt: skip
    assert all(0 < row["floor"]["weights_norm"] < 1e-3 for row in parts["equality"])
    assert [row["images_per_second"] > 0 for row in parts["speed"]] == [True]
    assert [row["what"] for row in parts["grid"]] == ["plan", "first model", "none", "npo", "summary"]
    done = parts["grid"][3]
    assert done["uxh"] > parts["grid"][2]["uxh"]
    assert set(done["recalibrated"]) == {"uxh", "utility", "healed", "asr"}

    again = run(out, "--seconds", "120", "--methods", "none,npo,delete", "--only", "grid")[len(rows) :]
    assert [row["what"] for row in again] == ["plan", "delete", "summary"]
    assert again[-1]["cells"] == 3
    assert again[-1]["processes"] == 2


def test_an_error_is_written_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = run(tmp_path / "out.jsonl", "--only", "equality,environment", "--methods", "no_such,none")
    assert [(row["what"], row.get("error")) for row in rows] == [
        ("no_such", "UnknownName"), ("none", None), ("machine", None),
    ]  # fmt: skip
    assert "no_such" in rows[0]["traceback"][-1]


def test_nothing_is_begun_that_would_outlast_the_time(tmp_path: Path) -> None:
    rows = run(tmp_path / "out.jsonl", "--seconds", "0", "--methods", "none,npo", "--only", "equality,speed")
    assert [row["part"] for row in rows] == ["equality", "equality", "speed"]
    assert all("skipped" in row for row in rows)
