"""``--log`` of the commands that run sweeps."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import expunge.sweep.estimate as estimate
from expunge.cli import app
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput, UnknownName

GRID = """
run = ["none", "finetune"]
seeds = [0]
[data]
name = "{data}"
[task]
n_corrupted = 10
patch = 2
swap_classes = [1, 2]
[[tasks]]
kind = "corruption"
regularity = "random"
discovery = [0.5, 1.0]
[recipe]
epochs = 1
batch_size = 32
augment = false
model_settings = {{ width = 4 }}
[methods."*"]
epochs = 1
batch_size = 32
augment = false
"""

needs_tensorboard = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lightning_fabric", "tensorboard")),
    reason="pytorch-lightning or tensorboard is not installed: pip install 'expunge[tensorboard]'",
)


class Lost:
    """A tracker whose server is gone."""

    def __init__(self, target: str | None, folder: Path) -> None:
        self.place = "nowhere"

    def log(self, record: Any) -> None:
        raise ConnectionError("no [answer]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "tiny.npz"
    made = learnable_images(96, 64)
    np.savez(
        path,
        images=made.train_images.numpy(),
        labels=made.train_labels.numpy(),
        test_images=made.test_images.numpy(),
        test_labels=made.test_labels.numpy(),
    )
    return path


@pytest.fixture
def grid(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(estimate, "_SECONDS", 0.01)
    path = tmp_path / "grid.toml"
    path.write_text(GRID.format(data=data), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    words = [*map(str, arguments), "--workers", "1", "--device", "cpu"]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


@needs_tensorboard
def test_every_cell_is_logged_once(grid: Path, tmp_path: Path, threads: None) -> None:
    out = tmp_path / "out"
    command = ("bench", grid, "--out", out, "--log", "tensorboard", "--log", f"{__name__}:Lost")
    first = run(*command, "--limit", "3")
    assert first.exit_code == 0, (first.output, first.exception)
    assert f"logged 3 runs to {out / 'tensorboard'}" in first.output
    assert "logged 0 runs to nowhere" in first.output
    assert first.output.count("warning: tracker") == 1
    assert ":Lost' failed (ConnectionError: no [answer]); it gets no more runs of this sweep" in " ".join(
        first.output.split()
    )
    second = run(*command)
    assert f"logged 1 run to {out / 'tensorboard'}" in second.output
    third = run(*command)
    assert f"logged 0 runs to {out / 'tensorboard'}" in third.output
    runs = sorted(path.name.rpartition("-")[0] for path in (out / "tensorboard").iterdir())
    assert runs == [
        "finetune-random-100-known-seed-0",
        "finetune-random-50-known-seed-0",
        "none-random-100-known-seed-0",
        "none-random-50-known-seed-0",
    ]


@needs_tensorboard
def test_map_logs_too(data: Path, tmp_path: Path, threads: None) -> None:
    preset = tmp_path / "preset.toml"
    preset.write_text(
        '[task]\npatch = 2\n[recipe]\nepochs = 1\nbatch_size = 32\naugment = false\nmodel = "resnet9"\n'
        "model_settings = { width = 4 }\n",
        encoding="utf-8",
    )
    result = run(
        "map", "--data", data, "--methods", "none", "--regularity", "random", "--discovery", "1.0",
        "--n-corrupted", "10", "--preset", preset, "--out", tmp_path / "map",
        "--log", f"tensorboard:{tmp_path / 'runs'}",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("command", ["bench", "map"])
def test_an_unknown_tracker_ends_before_any_work(command: str, tmp_path: Path) -> None:
    words = [command, *(["digits"] if command == "bench" else []), "--out", tmp_path / "out"]
    result = run(*words, "--log", "tensorbord")
    assert isinstance(result.exception, UnknownName)
    assert "unknown tracker 'tensorbord'; did you mean 'tensorboard'?" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_ends_before_any_work(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.import_module

    def without_wandb(name: str, *rest: Any) -> Any:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without_wandb)
    result = run("bench", grid, "--out", tmp_path / "out", "--log", "wandb")
    assert isinstance(result.exception, InvalidInput)
    assert "--log wandb needs wandb, which cannot be imported (No module named 'wandb')" in str(
        result.exception
    )
    assert not (tmp_path / "out" / "weights").exists()
    assert "cells run" not in result.output


def test_a_dry_run_opens_no_tracker(grid: Path, tmp_path: Path) -> None:
    result = run("bench", grid, "--out", tmp_path / "out", "--log", "mlflow", "--dry-run")
    assert result.exit_code == 0, (result.output, result.exception)
    assert not (tmp_path / "out").exists()
