from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import expunge.sweep.estimate as estimate
from expunge.cli import app
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput, UnknownName
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
    assert first.exit_code == 3, first.output
    # whole classes are needed: the hardest samples are refused before work, and the sweep goes on
    assert "14 cells run, 0 were there, 2 failed" in first.output
    assert "a forget set that is every training example of some classes" in " ".join(first.output.split())
    assert "Forget classes classes=3, %" in first.output
    with Store(tmp_path / "out") as store:
        records = store.database.records(status="done")
    assert {record.task for record in records} == {"classes", "hardest"}
    for record in records:
        assert record.regularity is None
        assert record.number("forget_accuracy") is not None
        assert record.number("entropy_attack") is not None
        assert ("forget_test_accuracy" in record.metrics) == (record.task == "classes")
    second = CliRunner().invoke(app, command)
    assert "0 cells run, 16 were there, 0 failed" in second.output


SMALL = """
run = ["none", "retrain", "finetune"]
seeds = [0, 1]
[data]
name = "{data}"
[task]
n_corrupted = 10
patch = 2
swap_classes = [1, 2]
[[tasks]]
kind = "corruption"
regularity = ["random", "poison"]
discovery = 0.5
[[tasks]]
kind = "random"
share = 0.1
[recipe]
batch_size = 32
augment = false
[methods."*"]
epochs = 1
batch_size = 32
augment = false
[[recipes]]
epochs = 2
model_settings = {{ width = 4 }}
[[recipes]]
epochs = 1
model = "expunge.models.mlp:MLP"
model_settings = {{ hidden = 8, activation = "relu" }}
"""
CELLS = 3 * 2 * 3 * 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    made = learnable_images(96, 64)
    np.savez(
        folder / "tiny.npz",
        images=made.train_images.numpy(),
        labels=made.train_labels.numpy(),
        test_images=made.test_images.numpy(),
        test_labels=made.test_labels.numpy(),
    )
    path = folder / "small.toml"
    path.write_text(SMALL.format(data=folder / "tiny.npz"), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_SECONDS", 0.01)


def bench(*arguments: str | Path) -> Result:
    words = ["bench", *(str(argument) for argument in arguments), "--workers", "1", "--device", "cpu"]
    return CliRunner().invoke(app, words, env={"COLUMNS": "80"})


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_dry_run_shows_the_plan_and_runs_nothing(small: Path, tmp_path: Path) -> None:
    result = bench(small, "--out", tmp_path / "out", "--dry-run")
    text = " ".join(result.output.split())
    assert "3 tasks x 2 recipes x 3 methods x 2 seeds = 36 cells" in text
    assert "original models 12, each trained once and shared" in text
    assert "references 12 runs of retrain" in text
    assert "96 training and 64 test images" in text
    assert "store none yet, so every cell is missing" in text
    assert "to run 36 cells, 12 original models" in text
    assert re.search(r"time about [0-9.]+ (s|min): an estimate", text)
    assert not (tmp_path / "out").exists()
    assert max(map(len, result.output.splitlines())) <= 80


def test_equal_trainings_are_told_once(small: Path, tmp_path: Path) -> None:
    recipe = "[[recipes]]\nepochs = 2\n[recipes.methods.finetune]\nepochs = {}\n"
    grid = tmp_path / "grid.toml"
    shared, _, _ = small.read_text(encoding="utf-8").partition("[[recipes]]")
    grid.write_text(shared + "".join(map(recipe.format, (1, 2, 3))), encoding="utf-8")
    text = " ".join(bench(grid, "--out", tmp_path / "out", "--dry-run").output.split())
    assert "3 tasks x 3 recipes" in text
    assert text.count("2 epochs of batches of 32") == 1


def test_a_sweep_in_parts(small: Path, tmp_path: Path, threads: None) -> None:
    out = tmp_path / "out"
    first = bench(small, "--out", out, "--limit", "4")
    assert first.exit_code == 0, (first.output, first.exception)
    assert "to run 4 cells of the 36 missing (--limit), 2 original models" in " ".join(first.output.split())
    assert "4 cells run, 0 were there, 0 failed" in first.output
    assert "32 cells still missing; the same command goes on with them" in first.output
    assert len(rows(out)) == 4

    dry = " ".join(bench(small, "--out", out, "--dry-run").output.split())
    assert "4 cells present, 0 failed, 32 missing" in dry
    assert "to run 32 cells, 10 original models" in dry

    part = bench(small, "--out", out, "--only", "finetune,seed=0", "--only", "resnet9")
    assert part.exit_code == 0, (part.output, part.exception)
    assert "selected 3 of the cells" in " ".join(part.output.split())
    assert "retrain is not run" in part.output
    assert {(row["method"], row["seed"], row["model"]) for row in rows(out)} == {("finetune", "0", "resnet9")}

    whole = bench(small, "--out", out)
    assert whole.exit_code == 0, (whole.output, whole.exception)
    found = rows(out)
    assert len(found) == CELLS
    assert {row["task"] for row in found} == {"corruption", "random"}
    for row in found:
        settings = json.loads(row["task_settings"])
        if row["task"] == "random":
            assert settings["share"] == 0.1
            assert 0 <= float(row["forget_accuracy"]) <= 1
            assert row["regularity"] == ""
        else:
            assert settings["n_corrupted"] == 10
            assert float(row["regularity"]) == settings["regularity"]
    # one report for each recipe: no mean mixes two models
    assert whole.output.count("Utility x Healed, %") == 2
    assert whole.output.count("Forget random share=0.1, %") == 2
    again = bench(small, "--out", out)
    assert f"0 cells run, {CELLS} were there, 0 failed" in again.output


def test_records_and_weights_elsewhere(small: Path, tmp_path: Path, threads: None) -> None:
    url, weights = f"sqlite:///{tmp_path / 'records.db'}", tmp_path / "weights"
    where = ("--out", tmp_path / "out", "--store", url, "--weights", weights)
    assert "none yet" in bench(small, *where, "--dry-run").output
    assert not (tmp_path / "records.db").exists()
    result = bench(small, *where, "--only", "none,random,seed=0,model=resnet9")
    assert isinstance(result.exception, InvalidInput)
    result = bench(small, *where, "--only", "none,task=random,seed=0,model=resnet9")
    assert result.exit_code == 0, (result.output, result.exception)
    assert (tmp_path / "records.db").is_file()
    assert list(weights.glob("*.safetensors"))
    assert not (tmp_path / "out" / "store.sqlite").exists()
    assert len(rows(tmp_path / "out")) == 1
    dry = " ".join(bench(small, *where, "--dry-run").output.split())
    assert "1 cells present, 0 failed, 35 missing" in dry


def test_failed_cells_end_with_code_three(small: Path, tmp_path: Path, threads: None) -> None:
    text = small.read_text(encoding="utf-8") + "[methods.finetune]\nlr = 1e12\n"
    grid = tmp_path / "grid.toml"
    grid.write_text(text, encoding="utf-8")
    command = (grid, "--out", tmp_path, "--only", "finetune,seed=0,resnet9,poison")
    result = bench(*command)
    assert result.exit_code == 3, result.output
    assert "failed: finetune, regularity 1, discovery 0.5, seed 0: Diverged" in result.output
    assert rows(tmp_path)[0]["status"] == "failed"
    again = bench(*command)
    assert again.exit_code == 3
    assert "0 cells present, 1 failed, 0 missing" in " ".join(again.output.split())
    assert "to run 0 cells" in " ".join(again.output.split())
    assert "--retry-failed runs them again" in again.output
    third = bench(*command, "--retry-failed", "--dry-run")
    assert "to run 1 cell, 0 original models" in " ".join(third.output.split())
    assert third.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("--only rme", UnknownName, "nothing in the grid is named 'rme'"),
        ("--only seed=9", UnknownName, "no cell has seed=9; the grid has method: none, retrain, finetune"),
        ("--only ,", InvalidInput, "--only is empty; name a method"),
        ("--limit 0", InvalidInput, "--limit must be at least 1, got 0"),
        ("--workers 0", InvalidInput, "--workers must be at least 1, got 0"),
    ],
)
def test_bad_options(
    small: Path, tmp_path: Path, arguments: str, error: type[Exception], message: str
) -> None:
    words = ["bench", str(small), "--out", str(tmp_path / "out"), *arguments.split()]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, error), (result.output, result.exc_info)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_an_unknown_grid_names_those_there_are() -> None:
    result = bench("digit")
    assert isinstance(result.exception, InvalidInput)
    assert "neither packaged (cifar10, cifar10-10k, " in str(result.exception)
