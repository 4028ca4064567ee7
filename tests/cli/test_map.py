from __future__ import annotations

import csv
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import expunge
import expunge.sweep.execute as execution
from expunge.cli import app
from expunge.data.synthetic import learnable_images
from expunge.errors import DataError, ExpungeError, InvalidInput, StoreError, UnknownName
from expunge.registry import METHODS
from expunge.store.record import Record
from expunge.store.store import Store
from expunge.sweep.run import run_cell
from worker_processes import is_alive, workers_of

HEADER = (
    "method,regularity,discovery,seed,healed,healed_known,healed_unknown,utility,uxh,asr,seconds,"
    "sample_gradients,status,data,model,task,task_settings"
)
PRESET = """
[task]
n_corrupted = 10
patch = 2
swap_classes = [1, 2]

[recipe]
epochs = 3
batch_size = 16
augment = false
model_settings = { width = 8 }

[methods."*"]
batch_size = 16
augment = false
"""
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds worker processes through /proc"
)


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a quick sweep: tiny images, a narrow network, three epochs."""
    folder = tmp_path_factory.mktemp("inputs")
    made = learnable_images(96, 64)
    np.savez(
        folder / "tiny.npz",
        images=made.train_images.numpy(),
        labels=made.train_labels.numpy(),
        test_images=made.test_images.numpy(),
        test_labels=made.test_labels.numpy(),
    )
    (folder / "quick.toml").write_text(PRESET, encoding="utf-8")
    return ["map", "--data", str(folder / "tiny.npz"), "--preset", str(folder / "quick.toml")]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def program(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    source = str(Path(expunge.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "expunge", *arguments], environment


def records(out: Path) -> list[Record]:
    with Store(out) as store:
        return store.database.records()


def check_outputs(out: Path, cells: set[tuple[str, float, float, int]]) -> None:
    text = (out / "results.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0].startswith(HEADER)
    rows = list(csv.DictReader(text.splitlines()))
    found = [
        (row["method"], float(row["regularity"]), float(row["discovery"]), int(row["seed"])) for row in rows
    ]
    assert len(found) == len(cells)
    assert set(found) == cells
    for row, record in zip(rows, records(out), strict=True):
        assert row["method"] == record.method
        assert row["status"] == record.status
        if record.status == "done":
            assert float(row["uxh"]) == pytest.approx(record.uxh, abs=1e-6)
    assert ElementTree.parse(out / "map.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_sweep_and_its_outputs(common: list[str], tmp_path: Path, threads: None) -> None:
    out = tmp_path / "deep" / "out"
    arguments = [
        *common, "--methods", "none, finetune", "--regularity", "random,0.75", "--discovery", "0.5",
        "--seeds", "0,4", "--workers", "1", "--out", str(out), "--set", "finetune.epochs=2",
        "--set", "recipe.lr=0.05", "--set", "task.patch=3", "--n-corrupted", "12",
    ]  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    cells = {(m, r, d, s) for m in ("none", "finetune") for r in (0, 0.75) for d in (0.5,) for s in (0, 4)}
    check_outputs(out, cells)
    assert "tiny.npz: 96 training images, resnet9, 8 cells, 4 original models, cpu float32, 1 worker\n" in (
        result.output
    )
    assert "8 cells run, 0 were there, 0 failed" in result.output
    assert "Utility x Healed, %" in result.output
    assert "Quality and cost" in result.output
    found = records(out)
    for record in found:
        assert record.n_corrupted == 12
        assert record.recipe["optimiser"]["lr"] == 0.05
        assert record.recipe["epochs"] == 3
        if record.method == "finetune":
            assert record.settings["epochs"] == 2
            assert record.settings["batch_size"] == 16
    # Three epochs teach nobody wrong labels, and the figure says so.
    assert "original model had not learned the corruption" in (out / "map.svg").read_text(encoding="utf-8")
    again = invoke(*arguments)
    assert "0 cells run, 8 were there, 0 failed" in again.output
    assert records(out) == found


def test_a_part_of_a_sweep_reports_that_part(common: list[str], tmp_path: Path, threads: None) -> None:
    def sweep(methods: str) -> None:
        result = invoke(
            *common, "--methods", methods, "--regularity", "random", "--discovery", "1", "--out", tmp_path
        )
        assert result.exit_code == 0, result.output

    sweep("none,finetune")
    sweep("none")
    text = (tmp_path / "results.csv").read_text(encoding="utf-8")
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["none"]
    assert [record.method for record in records(tmp_path)] == ["finetune", "none"]


def test_failed_cells_are_named(common: list[str], tmp_path: Path, threads: None) -> None:
    arguments = [
        *common, "--methods", "finetune", "--regularity", "random", "--discovery", "0.5",
        "--set", "finetune.lr=1e6", "--out", str(tmp_path),
    ]  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 3, result.output
    assert "failed: finetune, regularity 0, discovery 0.5, seed 0: Diverged: " in result.output
    assert "0 cells run, 0 were there, 1 failed" in result.output
    check_outputs(tmp_path, {("finetune", 0, 0.5, 0)})
    row = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[1]
    assert row.startswith("finetune,0,0.5,0,,,,,,,,,failed,")
    again = invoke(*arguments)
    assert "0 cells run, 1 were there, 0 failed" in again.output
    assert "1 of those that were there had failed; --retry-failed runs them again" in again.output
    assert again.exit_code == 3
    assert "0 cells run, 0 were there, 1 failed" in invoke(*arguments, "--retry-failed").output


def test_the_exit_codes_are_documented() -> None:
    for command in ("map", "bench"):
        assert "Exit code 3: some cell has failed." in " ".join(invoke(command, "--help").output.split())


def test_methods_that_need_unseen_images(common: list[str], tmp_path: Path, threads: None) -> None:
    arguments = [
        *common, "--methods", "lotus", "--regularity", "random", "--discovery", "1", "--workers", "1",
        "--set", "lotus.epochs=1", "--set", "lotus.batch_size=16",
    ]  # fmt: skip
    without = invoke(*arguments, "--out", tmp_path / "without")
    assert without.exit_code == 3
    result = invoke(*arguments, "--n-unseen", "16", "--out", tmp_path / "with")
    assert result.exit_code == 0, result.output
    assert "80 training images" in result.output
    assert records(tmp_path / "with")[0].data.endswith("tiny.npz-16")


def test_an_interruption(
    common: list[str], tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        *common,
        "--methods",
        "none",
        "--regularity",
        "random",
        "--out",
        str(tmp_path),
        "--workers",
        "1",
    ]
    whole = run_cell
    started: list[Any] = []

    def interrupt(cell: Any, *rest: Any) -> Record:
        started.append(cell)
        if len(started) == 3:  # handed over when the first has been written
            raise KeyboardInterrupt
        return whole(cell, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(execution, "run_cell", interrupt)
        result = invoke(*arguments)
    assert result.exit_code == 130
    assert "interrupted; finished cells are kept, the same command goes on from there" in result.output
    kept = len(records(tmp_path))
    assert kept in (1, 2)
    assert f"{3 - kept} cells run, {kept} were there, 0 failed" in invoke(*arguments).output


def test_a_weak_first_model_is_warned_of(common: list[str], tmp_path: Path, threads: None) -> None:
    result = invoke(
        *common, "--methods", "none", "--regularity", "random", "--discovery", "1", "--out", str(tmp_path),
        "--set", "recipe.epochs=1",
    )  # fmt: skip
    assert "warning: original model, random, seed 0: has learned only " in result.output


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("--methods rme", UnknownName, "unknown method 'rme'; did you mean 'rem'? (known: none, "),
        ("--methods ,", InvalidInput, "--methods is empty; give at least one value"),
        ("--methods none,none", InvalidInput, "the grid names one of its methods twice: "),
        (
            "--discovery 0",
            InvalidInput,
            "the discovery rate is the share of corrupted examples that is known",
        ),
        ("--discovery 1.5", InvalidInput, "must lie in (0, 1], got 1.5"),
        ("--discovery nan", InvalidInput, "discovery takes a number, got nan"),
        ("--discovery half", InvalidInput, "--discovery takes numbers separated by commas; got 'half'"),
        ("--discovery ,", InvalidInput, "--discovery is empty; give at least one value"),
        ("--data digit", UnknownName, "unknown data set 'digit'; did you mean 'digits'?"),
        ("--data nowhere.npz", DataError, "nowhere.npz"),
        ("--seeds x", InvalidInput, "--seeds takes whole numbers separated by commas; got 'x'"),
        ("--seeds 0,1.5", InvalidInput, "--seeds takes whole numbers separated by commas; got '0,1.5'"),
        ("--seeds 0,0", InvalidInput, "the grid names one of its seeds twice: 0"),
        (
            "--regularity poisoned",
            UnknownName,
            "unknown regularity 'poisoned'; expected random, interclass, ",
        ),
        (
            "--regularity 2",
            InvalidInput,
            "regularity must lie in [0, 1] (0 random, 0.5 interclass, 1 poison)",
        ),
        ("--regularity random,0", InvalidInput, "the grid names one of its tasks twice: "),
        ("--set lr=3", InvalidInput, "--set takes METHOD.FIELD=VALUE, got 'lr=3'"),
        ("--set rem.lr", InvalidInput, "--set takes METHOD.FIELD=VALUE, got 'rem.lr'"),
        ("--set rem.=3", InvalidInput, "--set takes METHOD.FIELD=VALUE, got 'rem.=3'"),
        ("--set =3", InvalidInput, "--set takes METHOD.FIELD=VALUE, got '=3'"),
        ("--set rem.rate=3", UnknownName, "lr, batch_size, "),
        ("--set rem.lr=fast", InvalidInput, "method 'rem' cannot be made with "),
        ("--set rem.flush=False", InvalidInput, "method 'rem': flush must be true or false, got 'False'"),
        ("--set npo.lr=1", InvalidInput, "--set names 'npo', which is neither recipe, task nor one of the "),
        (
            "--set recipes.lr=1",
            InvalidInput,
            "--set names 'recipes', which is neither recipe, task nor one of",
        ),
        (
            "--set recipe.epoch=3",
            UnknownName,
            "Recipe has no setting 'epoch'; did you mean 'epochs'? (settings: ",
        ),
        ("--set recipe.epochs=ten", InvalidInput, "Recipe cannot be made with "),
        ("--set recipe.epochs=0", InvalidInput, "epochs and batch size must be at least 1, got 0 and 16"),
        (
            "--set task.patches=3",
            UnknownName,
            "CorruptionTask has no setting 'patches'; did you mean 'patch'?",
        ),
        ("--workers 0", InvalidInput, "--workers must be at least 1, got 0"),
        ("--model resnet8", UnknownName, "unknown model 'resnet8'; did you mean 'resnet9'?"),
        ("--n-train 0", InvalidInput, "a subset of 0 training images was asked for; tiny.npz has 96"),
        ("--n-train 97", InvalidInput, "a subset of 97 training images was asked for; tiny.npz has 96"),
        ("--n-corrupted 0", InvalidInput, "n_corrupted must be at least 1, got 0"),
        ("--n-corrupted 96", InvalidInput, "96 corrupted images were asked for, but tiny.npz has 96; lower"),
        ("--device nonsense", InvalidInput, "device 'nonsense' is not one torch knows: "),
        ("--preset nowhere.toml", InvalidInput, "nowhere.toml"),
    ],
)
def test_bad_input(
    common: list[str], tmp_path: Path, arguments: str, error: type[ExpungeError], message: str
) -> None:
    result = invoke(*common, "--methods", "none,rem", "--out", tmp_path / "out", *arguments.split())
    assert isinstance(result.exception, error), (result.output, result.exc_info)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there(common: list[str]) -> None:
    result = invoke(*common, "--device", "cuda")
    assert isinstance(result.exception, InvalidInput)
    assert "torch sees no CUDA device; use device='cpu'" in str(result.exception)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[recipe]\nepochs = ", "is not valid TOML"),
        (b"[recipes]\nepochs = 3", "unknown section [recipes]"),
        (b"\xff\xfe\x00", "can't decode"),
    ],
)
def test_a_bad_preset_is_named(common: list[str], tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    result = invoke(*common, "--preset", path, "--out", tmp_path / "out")
    assert isinstance(result.exception, InvalidInput)
    assert str(path) in str(result.exception)
    assert message in str(result.exception)


def test_a_corrupt_store_is_named(common: list[str], tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database at all, but longer than a header " * 100)
    result = invoke(*common, "--methods", "none", "--out", tmp_path)
    assert isinstance(result.exception, StoreError)
    assert f"the database {tmp_path / 'store.sqlite'} is damaged or not a database" in str(result.exception)
    assert not (tmp_path / "results.csv").exists()


def test_a_method_of_ones_own_by_its_path(common: list[str], tmp_path: Path, threads: None) -> None:
    result = invoke(
        *common, "--methods", "expunge.methods.finetune:FineTune", "--regularity", "random",
        "--discovery", "1", "--out", str(tmp_path), "--set", "expunge.methods.finetune:FineTune.epochs=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [record.settings["epochs"] for record in records(tmp_path)] == [1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--methods", "rme"],
            f"error: unknown method 'rme'; did you mean 'rem'? (known: {', '.join(METHODS.names())})",
        ),
        (
            ["--regularity", "poisoned"],
            "error: unknown regularity 'poisoned'; expected random, interclass, poison or a number in [0, 1]",
        ),
    ],
)
def test_errors_are_one_line_and_exit_code_one(
    common: list[str], tmp_path: Path, arguments: list[str], line: str
) -> None:
    command, environment = program([*common, "--out", str(tmp_path / "out"), *arguments])
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert answer.returncode == 1
    assert answer.stderr == line + "\n"
    assert answer.stdout == ""


class Sweep:
    """A sweep in processes of its own, to be killed."""

    def __init__(self, arguments: list[str]) -> None:
        command, environment = program(arguments)
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        self.workers: set[int] = set()

    def kill(self) -> None:
        """Note the workers, then kill the coordinator with no chance to tidy up."""
        self.workers = set(workers_of(self.process.pid))
        self.process.kill()
        self.process.wait()

    def wait_until(self, what: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, "the sweep ended too early"
            assert time.monotonic() < deadline, "the sweep takes too long"
            time.sleep(0.01)

    def wait_for_workers_to_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while left := {number for number in self.workers if is_alive(number)}:
            assert time.monotonic() < deadline, f"workers {left} outlived their coordinator"
            time.sleep(0.05)

    def tidy_up(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for number in self.workers:
            if is_alive(number):
                os.kill(number, signal.SIGKILL)


def count(out: Path) -> int:
    """Number of records, without making the database or waiting for it."""
    try:
        connection = sqlite3.connect(f"file:{out / 'store.sqlite'}?mode=ro", uri=True, timeout=0)
        try:
            return int(connection.execute("select count(*) from records").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0


@needs_proc
@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(common: list[str], tmp_path: Path) -> None:
    arguments = [
        *common, "--methods", "none,finetune", "--regularity", "random,poison", "--discovery", "0.2,0.5,1",
        "--out", str(tmp_path), "--workers", "2",
    ]  # fmt: skip
    total = 2 * 2 * 3
    sweep = Sweep(arguments)
    try:
        sweep.wait_until(lambda: count(tmp_path) > 0)
        sweep.kill()
        assert sweep.workers
        sweep.wait_for_workers_to_end(10)
    finally:
        sweep.tidy_up()
    kept = {record.key: record for record in records(tmp_path)}
    assert 0 < len(kept) < total
    assert not (tmp_path / "results.csv").exists()
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").glob("*.safetensors")}

    command, environment = program(arguments)
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert f"{total - len(kept)} cells run, {len(kept)} were there, 0 failed" in again.stdout
    found = records(tmp_path)
    assert len(found) == len({record.key for record in found}) == total
    for record in found:
        assert record.status == "done"
        if record.key in kept:
            assert record == kept[record.key]
    assert (
        models.items()
        <= {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").glob("*.safetensors")}.items()
    )
    check_outputs(
        tmp_path,
        {(m, r, d, 0) for m in ("none", "finetune") for r in (0, 1) for d in (0.2, 0.5, 1)},
    )


@needs_proc
def test_workers_killed_with_their_coordinator_while_starting(common: list[str], tmp_path: Path) -> None:
    sweep = Sweep([*common, "--methods", "none", "--out", str(tmp_path), "--workers", "1"])
    try:
        sweep.wait_until(lambda: bool(workers_of(sweep.process.pid)))
        sweep.kill()
        assert sweep.workers
        sweep.wait_for_workers_to_end(30)
    finally:
        sweep.tidy_up()
