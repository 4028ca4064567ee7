from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.store.store import Store

GRID = """
run = ["none", "retrain", "finetune", "mnemonic_code"]
seeds = [0, 1]
[data]
name = "digits"
n_train = 200
[[tasks]]
kind = "classes"
classes = [3]
[[tasks]]
kind = "hardest"
share = 0.05
[recipe]
model = "resnet9"
epochs = 3
batch_size = 64
augment = false
model_settings = { width = 8 }
[methods."*"]
batch_size = 64
augment = false
epochs = 1
"""


@pytest.mark.slow
def test_a_grid_of_forgetting_tasks_runs_and_resumes(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID, encoding="utf-8")
    command = ["bench", str(grid), "--out", str(tmp_path / "out"), "--workers", "2"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    # whole classes are needed: the hardest samples are refused before work, and the sweep goes on
    assert "14 cells run, 0 were there, 2 failed" in first.output
    assert "a forget set that is every training example of some classes" in " ".join(first.output.split())
    assert "Forget classes classes=3, %" in first.output
    with Store(tmp_path / "out") as store:
        records = store.database.records(status="done")
    assert {record.task for record in records} == {"classes", "hardest"}
    for record in records:
        assert record.regularity is None
        assert record.metrics["forget_accuracy"] is not None
        assert record.metrics["entropy_attack"] is not None
        assert ("forget_test_accuracy" in record.metrics) == (record.task == "classes")
    second = CliRunner().invoke(app, command)
    assert "0 cells run, 16 were there, 0 failed" in second.output


def test_dry_run_shows_the_plan_and_runs_nothing(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID, encoding="utf-8")
    result = CliRunner().invoke(app, ["bench", str(grid), "--out", str(tmp_path / "out"), "--dry-run"])
    assert "2 tasks x 4 methods x 2 seeds = 16 cells, 4 first models" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
