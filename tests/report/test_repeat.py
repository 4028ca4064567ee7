from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_records import make
from typer.testing import CliRunner

import expunge.benchmark.execute as execution
from expunge.benchmark.plan import DataChoice, Plan, make_plan
from expunge.benchmark.preset import Preset
from expunge.benchmark.run import failed_record
from expunge.cli import app
from expunge.data.synthetic import learnable_images
from expunge.report.repeat import Commands, grid_text
from expunge.store.record import Record
from expunge.tasks.forgetting import FORGET_TASKS
from expunge.training.numerics import Numerics

CPU = Numerics(device="cpu")


class Planned(Exception):
    """Raised in place of running a plan."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = learnable_images(96, 64)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(
        path,
        images=made.train_images.numpy(),
        labels=made.train_labels.numpy(),
        test_images=made.test_images.numpy(),
        test_labels=made.test_labels.numpy(),
    )
    return str(path)


def records_of(plan: Plan) -> list[Record]:
    """What a store holds after the plan, outcomes apart; provenance as on this machine."""
    return [failed_record(cell, "not run") for cell in plan.cells]


def keys_run_by(command: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> set[str]:
    """Keys of the cells that a command would run."""
    planned: list[Plan] = []

    def execute(plan: Plan, *_: Any, **__: Any) -> None:
        planned.append(plan)
        raise Planned

    monkeypatch.setattr(execution, "execute", execute)
    words = shlex.split(command)
    assert words[0] == "expunge"
    found = CliRunner().invoke(app, [*words[1:], "--out", str(folder)])
    assert isinstance(found.exception, Planned), found.output
    return {cell.key for cell in planned[0].cells}


def identity(records: list[Record]) -> dict[str, str]:
    return {record.method: record.method for record in records}


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"n_train": 64},
        {"n_train": 64, "n_unseen": 10},
        {"imbalance": 0.55},
        {"n_train": 64, "imbalance": 0.55, "n_unseen": 10},
    ],
    ids=["whole", "part", "unseen", "imbalanced", "all three"],
)
def test_the_command_runs_the_same_cells(
    data: str, numbers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preset = Preset.parse(
        """
        [task]
        n_corrupted = 10
        patch = 2
        swap_classes = [1, 2]
        [recipe]
        epochs = 3
        batch_size = 16
        optimiser = { lr = 0.02 }
        model_settings = { width = 8 }
        [methods.rem]
        rounds = 2
        """,
        "here",
    )
    tasks = [preset.make_task(regularity=regularity, discovery=0.5) for regularity in (0.0, 0.123456789)]
    methods = [preset.make_method(name) for name in ("retrain", "rem")]
    records = records_of(
        make_plan(DataChoice(data, **numbers), tasks, preset.make_recipe(), methods, [3, 5], CPU)
    )
    command = Commands(identity(records)).command(records)
    assert command is not None
    assert "--regularity random,0.123456789" in command
    assert keys_run_by(command, monkeypatch, tmp_path) == {record.key for record in records}


def test_what_the_preset_says_is_not_repeated() -> None:
    preset = Preset.of("digits")
    task = {"n_corrupted": preset.make_task().n_corrupted, "patch": preset.make_task().patch}
    record = make(method="rem", settings=preset.make_method("rem").settings(), task_settings=task)
    command = Commands({"rem": "rem"}).command([record])
    assert command == "expunge map --data digits --methods rem --regularity random --discovery 0.1 --seeds 0"


def test_labels_are_turned_back_and_text_is_quoted() -> None:
    record = make(method="npo lr=1", settings={"lr": 1.0}, data="it's; here.npz")
    command = Commands({"npo lr=1": "npo"}).command([record])
    assert command is not None
    words = shlex.split(command)
    assert words[words.index("--methods") + 1] == "npo"
    assert words[words.index("--data") + 1] == "it's; here.npz"
    assert "npo.lr=1.0" in words


def test_where_there_is_no_command() -> None:
    commands = Commands({"rem": "rem", "other": "rem", "gone": "gone"})
    assert commands.command([make(method="gone")]) is None
    assert commands.command([make(settings={"lr": 0.1}), make(method="other", settings={"lr": 0.2})]) is None
    assert commands.command([make(recipe={"example_tied": {"share": 0.9}})]) is None
    assert commands.command([make(settings={"lr": None})]) is None  # TOML has no null


def test_the_grid_runs_the_same_cells(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    preset = Preset.parse("[recipe]\nepochs = 3\nmodel_settings = { width = 8 }", "here")
    tasks = [FORGET_TASKS["classes"](classes=(1,)), FORGET_TASKS["random"](share=0.1)]
    methods = [preset.make_method(name) for name in ("retrain", "natmu")]
    choice = DataChoice(data, n_train=64)
    records = records_of(make_plan(choice, tasks, preset.make_recipe(), methods, [0, 1], CPU))
    text = grid_text(records, identity(records))
    assert text is not None
    grid = tmp_path / "grid.toml"
    grid.write_text(text, encoding="utf-8")
    command = shlex.join(["expunge", "bench", str(grid), "--device", "cpu"])
    assert keys_run_by(command, monkeypatch, tmp_path) == {record.key for record in records}


def test_no_grid_for_two_settings_of_a_method() -> None:
    records = [make(task="classes", settings={"lr": lr}) for lr in (0.1, 0.2)]
    assert grid_text(records, {"rem": "rem"}) is None
