from __future__ import annotations

import copy
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import expunge.benchmark.execute as module
from expunge.benchmark.execute import Status, execute
from expunge.benchmark.plan import DIFFICULTY, Cell, DataChoice, Plan, Training, make_plan
from expunge.benchmark.run import run_cell, run_training
from expunge.errors import StoreError
from expunge.methods.base import Method
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.store.record import Record
from expunge.store.store import Store
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = Recipe(epochs=1, batch_size=16, augment=False, model_settings={"width": 8})
NONE = NoUnlearning()
TUNE = FineTune(epochs=1, batch_size=16, augment=False)
DIVERGES = FineTune(lr=1e6, epochs=3, batch_size=16, augment=False)
Job = Training | Cell


def plan_of(
    data: DataChoice,
    *methods: Method,
    regularity: Sequence[float] = (0.0, 1.0),
    recipe: Recipe = RECIPE,
    seeds: Sequence[int] = (0,),
) -> Plan:
    tasks = [CorruptionTask(regularity=r, n_corrupted=10, patch=2, discovery=0.5) for r in regularity]
    return make_plan(data, tasks, recipe, methods, seeds, Numerics(channels_last=False))


class Inline(Executor):
    """Carries out each job at once, in this process, and notes it.

    Args:
        ran: what was carried out, in order.
        breaks: called before each job; where true, the pool is broken like one whose worker died.
        refuses: like ``breaks``, but the pool is found broken when the job is handed over.
    """

    def __init__(self, ran: list[Job], breaks: Callable[[Job], bool], refuses: Callable[[Job], bool]) -> None:
        self.ran, self.breaks, self.refuses, self.broken = ran, breaks, refuses, False

    def submit(self, task: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        job, future = args[0], Future[Any]()
        if self.refuses(job):
            raise BrokenProcessPool("found broken")
        self.broken = self.broken or self.breaks(job)
        if self.broken:
            future.set_exception(BrokenProcessPool("a worker died"))
            return future
        self.ran.append(job)
        try:
            future.set_result(task(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Pools:
    """Stands in for process pools, whose start takes seconds."""

    def __init__(self) -> None:
        self.ran: list[Job] = []
        self.started: list[int] = []
        self.breaks: Callable[[Job], bool] = lambda job: False
        self.refuses: Callable[[Job], bool] = lambda job: False

    def __call__(self, workers: int, *_: Any, **__: Any) -> Inline:
        self.started.append(workers)
        return Inline(self.ran, self.breaks, self.refuses)

    def names(self) -> list[str]:
        return [job.method.name if isinstance(job, Cell) else "training" for job in self.ran]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Pools:
    made = Pools()
    monkeypatch.setattr(module, "ProcessPoolExecutor", made)
    return made


def records(folder: Path) -> list[Record]:
    with Store(folder) as store:
        return store.database.records()


def sweep(folder: Path, plan: Plan, **options: Any) -> Status:
    with Store(folder) as store:
        return execute(plan, store, **options)


def test_a_second_run_does_nothing(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    plan = plan_of(easy, NONE, TUNE)
    first = sweep(tmp_path, plan)
    assert (first.total, first.present, first.done, first.failed) == (4, 0, 4, 0)
    assert first.share == pytest.approx(1.0)
    before = records(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").iterdir()}
    assert {record.key for record in before} == {cell.key for cell in plan.cells}
    assert len(files) == 2 + 2  # first models and draws
    pools.ran.clear()
    second = sweep(tmp_path, plan)
    assert (second.total, second.present, second.done, second.failed) == (4, 4, 0, 0)
    assert pools.ran == []
    assert pools.started == [1]
    assert records(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").iterdir()} == files


def test_only_what_is_missing_runs(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    sweep(tmp_path, plan_of(easy, NONE, regularity=[0.0]))
    before = records(tmp_path)
    assert pools.names() == ["training", "none"]
    pools.ran.clear()
    status = sweep(tmp_path, plan_of(easy, NONE, TUNE, regularity=[0.0]))
    assert (status.total, status.present, status.done) == (2, 1, 1)
    # the training is asked for, and found in the store
    assert pools.names() == ["training", "finetune"]
    assert len(list((tmp_path / "weights").iterdir())) == 2
    assert [record for record in records(tmp_path) if record.method == "none"] == before


def test_status_after_every_job(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    seen: list[Status] = []
    sweep(tmp_path, plan_of(easy, NONE, TUNE), report=lambda status: seen.append(copy.deepcopy(status)))
    assert len(seen) == 1 + 2 + 4
    shares = [status.share for status in seen]
    # trainings 1 each, finetune 1.2 and none 0.2: long ones first
    total = 2 * (1 + 1.2 + 0.2)
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert shares[-1] == pytest.approx(1)
    assert shares[1] == pytest.approx(1 / total)
    assert [status.done for status in seen][-1] == 4
    assert {status.doing for status in seen} >= {"first model, poison, seed 0"}
    # a first model that is there is no work
    seen.clear()
    sweep(
        tmp_path, plan_of(easy, NONE, TUNE, NPO()), report=lambda status: seen.append(copy.deepcopy(status))
    )
    assert [status.share for status in seen] == pytest.approx([0, 0, 0, 0.5, 1])


def test_a_first_model_that_learned_little_is_told(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    (warning,) = sweep(tmp_path, plan_of(easy, NONE, regularity=[0.0])).warnings
    assert warning.startswith("first model, random, seed 0: has learned only ")
    assert warning.endswith("% of the corruption")


def test_a_failed_cell_does_not_stop_the_sweep(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    plan = plan_of(easy, DIVERGES, NONE, regularity=[0.0])
    status = sweep(tmp_path, plan)
    assert (status.done, status.failed) == (1, 1)
    failed, done = records(tmp_path)
    assert (failed.method, failed.status, done.method, done.status) == ("finetune", "failed", "none", "done")
    assert "learning rate" in failed.error
    # failed is recorded: the next run leaves it
    pools.ran.clear()
    assert sweep(tmp_path, plan).present == 2
    assert pools.ran == []


def test_a_failed_cell_is_run_again_on_request(
    easy: DataChoice, tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(easy, TUNE, NONE, regularity=[0.0])
    with monkeypatch.context() as patch:
        patch.setattr(FineTune, "unlearn", lambda *_: 1 / 0)
        assert sweep(tmp_path, plan).failed == 1
    failed, untouched = records(tmp_path)
    assert failed.error.strip().endswith("ZeroDivisionError: division by zero")
    pools.ran.clear()
    status = sweep(tmp_path, plan, retry_failed=True)
    assert (status.present, status.done, status.failed) == (1, 1, 0)
    assert pools.names() == ["training", "finetune"]
    repaired, same = records(tmp_path)
    assert (repaired.key, repaired.status, repaired.error) == (failed.key, "done", "")
    assert same == untouched


def test_when_the_first_training_fails(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    recipe = dataclasses.replace(RECIPE, optimiser=Optimiser(lr=1e12))
    plan = plan_of(easy, NONE, TUNE, recipe=recipe)
    status = sweep(tmp_path, plan)
    assert (status.done, status.failed) == (0, 4)
    assert status.share == pytest.approx(1)
    assert pools.names() == ["training", "training"]
    for record in records(tmp_path):
        assert record.status == "failed"
        assert record.error.startswith("the first training failed: Diverged: the training loss became ")
        assert record.error.endswith("lower the learning rate")


def test_unlearned_weights_are_kept(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    plan = plan_of(easy, TUNE, regularity=[0.0])
    sweep(tmp_path, plan, keep_weights=True)
    (record,) = records(tmp_path)
    assert record.weights_key == plan.cells[0].key
    with Store(tmp_path) as store:
        kept = store.weights.load(record.weights_key)
        assert kept.keys() == store.weights.load(record.model_key).keys() - {DIFFICULTY}


def test_no_more_workers_than_cells(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    sweep(tmp_path, plan_of(easy, NONE, TUNE, regularity=[0.0]), workers=64)
    assert pools.started == [2]


def test_a_job_that_kills_its_worker_fails_alone(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    deadly = NPO(passes=3)
    pools.breaks = lambda job: isinstance(job, Cell) and job.method == deadly
    status = sweep(tmp_path, plan_of(easy, TUNE, NONE, deadly, regularity=[0.0]), workers=3)
    assert (status.done, status.failed) == (2, 1)
    outcome = {record.method: record for record in records(tmp_path)}
    assert {name: record.status for name, record in outcome.items()} == {
        "finetune": "done", "none": "done", "npo": "failed"
    }  # fmt: skip
    assert outcome["npo"].error == ("the worker process died 3 times while it ran this; is memory short?")


def test_a_training_that_kills_its_worker(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    pools.breaks = lambda job: isinstance(job, Training) and job.task.regularity == 1
    status = sweep(tmp_path, plan_of(easy, NONE, TUNE), workers=2)
    assert (status.done, status.failed) == (2, 2)
    for record in records(tmp_path):
        assert record.status == ("done" if record.regularity == 0 else "failed")
        assert ("the worker process died 3 times" in record.error) is (record.regularity == 1)


def test_a_pool_found_broken_loses_no_job(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    refused: list[Job] = []

    def refuse_once(job: Job) -> bool:
        if isinstance(job, Cell) and not refused:
            refused.append(job)
            return True
        return False

    pools.refuses = refuse_once
    plan = plan_of(easy, NONE, TUNE)
    status = sweep(tmp_path, plan)
    assert len(refused) == 1
    assert (status.done, status.failed) == (4, 0)
    assert {record.key for record in records(tmp_path)} == {cell.key for cell in plan.cells}


def test_a_store_that_cannot_be_written(easy: DataChoice, tmp_path: Path, pools: Pools) -> None:
    plan = plan_of(easy, NONE, regularity=[0.0])
    with Store(tmp_path) as store:

        def rival(status: Status) -> None:
            # another sweep on the same store is faster
            if status.doing and not status.done:
                run_training(plan.trainings[0], store.weights.folder)
                store.database.add(run_cell(plan.cells[0], store.weights.folder))

        with pytest.raises(StoreError, match=r"is done already in .*store.sqlite and is never replaced"):
            execute(plan, store, report=rival)


def children() -> dict[int, list[bytes]]:
    """Command lines of this process's living children by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found[int(entry.name)] = command
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes through /proc")
def test_a_killed_worker_is_replaced(easy: DataChoice, tmp_path: Path) -> None:
    before = set(children())
    killed: list[int] = []
    left: list[int] = []

    def kill_one(status: Status) -> None:
        if status.done and not killed:
            workers = [
                number for number, command in children().items()
                if number not in before and any(b"spawn_main" in part for part in command)
            ]  # fmt: skip
            left.append(status.total - status.done)
            killed.append(max(workers))
            os.kill(killed[0], signal.SIGKILL)

    plan = plan_of(easy, NONE, TUNE, NPO(passes=2, augment=False), seeds=[0])
    status = sweep(tmp_path, plan, workers=2, report=kill_one)
    assert len(killed) == 1
    assert left[0] > 0
    assert (status.done, status.failed) == (6, 0)
    found = records(tmp_path)
    assert sorted(record.key for record in found) == sorted(cell.key for cell in plan.cells)
    assert {record.status for record in found} == {"done"}
    # what was interrupted in the middle of writing left nothing half done behind
    with Store(tmp_path) as store:
        for training in plan.trainings:
            store.weights.load(training.key)
    deadline = time.monotonic() + 10
    while killed[0] in children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert killed[0] not in children()
