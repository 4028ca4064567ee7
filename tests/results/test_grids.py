from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_records import make
from typer.testing import CliRunner

import expunge.sweep.execute as execution
from expunge.cli import app
from expunge.data.synthetic import learnable_images
from expunge.results.cells import Grids
from expunge.store.record import Record
from expunge.sweep.grid import Grid, Setup
from expunge.sweep.plan import DataChoice, Plan
from expunge.sweep.preset import Preset
from expunge.sweep.run import failed_record
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom
from expunge.training.numerics import Numerics


class Planned(Exception):
    """Raised in place of running a plan."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = learnable_images(96, 64)
    path = tmp_path_factory.mktemp("data") / "it's; tiny.npz"
    np.savez(
        path,
        images=made.train_images.numpy(),
        labels=made.train_labels.numpy(),
        test_images=made.test_images.numpy(),
        test_labels=made.test_labels.numpy(),
    )
    return str(path)


@pytest.fixture
def grid(data: str) -> Grid:
    """Corruption at a place without a name and good data to be forgotten, by methods with settings of their own."""
    task = "[task]\nn_corrupted = 10\npatch = 2\nswap_classes = [1, 2]\n"
    preset = Preset.parse(f"{task}[recipe]\nepochs = 3\nmodel_settings = {{ width = 8 }}", "here")
    tasks = (
        preset.make_task(regularity=0.123456789, discovery=0.5),
        preset.make_task(regularity=1.0, discovery=0.5),
        ForgetClasses(classes=(1, 2)),
        ForgetRandom(share=0.1),
    )
    methods = tuple(preset.make_method(name) for name in ("retrain", "natmu"))
    choice = DataChoice(data, n_train=64, imbalance=0.55, n_unseen=10)
    return Grid(choice, tasks, (Setup(preset.make_recipe(), methods),), (3, 5), metrics=("tow",))


@pytest.fixture
def records(grid: Grid) -> list[Record]:
    """What a store holds after the grid, outcomes apart."""
    plan = grid.plan(Numerics(device="cpu"))
    return [failed_record(cell, "not run") for cell in plan.cells]


def keys_run_by(command: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> set[str]:
    """Keys of the cells that a command would run."""
    planned: list[Plan] = []

    def execute(plan: Plan, *_: Any, **__: Any) -> None:
        planned.append(plan)
        raise Planned

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    assert words[0] == "expunge"
    found = CliRunner().invoke(app, [*words[1:], "--out", str(folder / "out")])
    assert isinstance(found.exception, Planned), found.output
    return {cell.key for cell in planned[0].cells}


@pytest.mark.parametrize("place", ["0.123456789", "poison", "classes", "random"])
def test_the_command_runs_the_same_cells(
    grid: Grid, records: list[Record], place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = {
        "0.123456789": lambda record: record.regularity == 0.123456789,
        "poison": lambda record: record.regularity == 1.0,
        "classes": lambda record: record.task == "classes",
        "random": lambda record: record.task == "random",
    }[place]
    own = [record for record in records if record.method == "natmu" and chosen(record)]
    assert len(own) == 2
    (tmp_path / "grid.toml").write_text(grid.text(), encoding="utf-8")
    command = Grids([grid.text()]).command(own, {"natmu": "natmu"})
    assert command is not None
    assert keys_run_by(command, monkeypatch, tmp_path) == {record.key for record in own}


def test_the_whole_grid_runs_all_cells(
    grid: Grid, records: list[Record], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "grid.toml").write_text(grid.text(), encoding="utf-8")
    command = "expunge bench grid.toml --device cpu"
    assert keys_run_by(command, monkeypatch, tmp_path) == {record.key for record in records}


def test_where_there_is_no_command(grid: Grid, records: list[Record]) -> None:
    grids = Grids([grid.text()])
    natmu = next(record for record in records if record.method == "natmu")
    assert grids.command([natmu], {"natmu": "natmu"}) is not None
    for changed in ({"method": "gone"}, {"seed": 9}, {"settings": {"lr": 3.0}}, {"data": "mnist"}):
        record = make(**{**vars(natmu), **changed})
        assert (
            grids.command([natmu, record], {"natmu": "natmu", "gone": "gone"}) is None
            or record.method == "gone"
        )
        assert grids.command([record], {"natmu": "natmu", "gone": "gone"}) is None
    assert Grids([]).command([natmu], {"natmu": "natmu"}) is None


def test_the_grid_that_fits_is_named(grid: Grid, records: list[Record]) -> None:
    other = grid.text().replace("seeds = [3, 5]", "seeds = [4]")
    grids = Grids([other, grid.text()])
    assert list(grids.files) == ["grid-1.toml", "grid-2.toml"]
    natmu = next(record for record in records if record.method == "natmu")
    assert (grids.command([natmu], {"natmu": "natmu"}) or "").startswith("expunge bench grid-2.toml --only ")


def test_a_grid_of_other_tasks_or_another_model_does_not_fit(grid: Grid, records: list[Record]) -> None:
    poison = next(record for record in records if record.method == "natmu" and record.regularity == 1.0)
    random = next(record for record in records if record.method == "natmu" and record.task == "random")
    other = grid.text().replace("regularity = 1.0", "regularity = 0.5").replace("share = 0.1", "share = 0.2")
    for record in (poison, random):
        command = Grids([other, grid.text()]).command([record], {"natmu": "natmu"})
        assert (command or "").startswith("expunge bench grid-2.toml --only ")
    smaller = grid.text().replace('model = "resnet9"', 'model = "convnet"')
    assert smaller != grid.text()
    assert Grids([smaller]).command([poison], {"natmu": "natmu"}) is None
