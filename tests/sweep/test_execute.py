from __future__ import annotations

import copy
import dataclasses
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import expunge.sweep.execute as module
from expunge.engine import EngineError, WorkerLost
from expunge.errors import StoreError
from expunge.methods.base import Method
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.store import weights
from expunge.store.claims import Claims
from expunge.store.owner import Owner
from expunge.store.record import Record
from expunge.store.schema import CLAIMS
from expunge.store.store import Store
from expunge.sweep.execute import Status, execute
from expunge.sweep.plan import DIFFICULTY, Cell, DataChoice, Plan, Training, make_plan
from expunge.sweep.run import run_cell, run_training
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe
from worker_processes import is_alive, workers_of

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


class Inline:
    """An engine that carries out each job at once, in this process, and notes it.

    Args:
        slots: how many jobs it takes at a time.
        ran: what was carried out, in order.
        dies: called before each job; where true, its worker is lost.
    """

    def __init__(self, slots: int, ran: list[Job], dies: Callable[[Job], bool]) -> None:
        self.slots, self.ran, self.dies, self.closed = slots, ran, dies, False

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        job, future = args[0], Future[Any]()
        if self.dies(job):
            future.set_exception(WorkerLost("a worker died"))
            return future
        self.ran.append(job)
        try:
            future.set_result(task(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        self.closed = True


class Engines:
    """Stands in for worker processes, whose start takes seconds."""

    def __init__(self) -> None:
        self.ran: list[Job] = []
        self.made: list[Inline] = []
        self.dies: Callable[[Job], bool] = lambda job: False

    def __call__(self, workers: int, threads: int) -> Inline:
        self.made.append(Inline(workers, self.ran, self.dies))
        return self.made[-1]

    def names(self) -> list[str]:
        return [job.method.name if isinstance(job, Cell) else "training" for job in self.ran]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    made = Engines()
    monkeypatch.setattr(module, "LocalEngine", made)
    return made


def records(folder: Path) -> list[Record]:
    with Store(folder) as store:
        return store.database.records()


def sweep(folder: Path, plan: Plan, **options: Any) -> Status:
    with Store(folder) as store:
        return execute(plan, store, **options)


def test_a_second_run_does_nothing(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    plan = plan_of(easy, NONE, TUNE)
    first = sweep(tmp_path, plan)
    assert (first.total, first.present, first.done, first.failed) == (4, 0, 4, 0)
    assert first.share == pytest.approx(1.0)
    before = records(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").iterdir()}
    assert {record.key for record in before} == {cell.key for cell in plan.cells}
    assert len(files) == 2 + 2  # original models and draws
    engines.ran.clear()
    second = sweep(tmp_path, plan)
    assert (second.total, second.present, second.done, second.failed) == (4, 4, 0, 0)
    assert engines.ran == []
    assert [engine.slots for engine in engines.made] == [1]
    assert records(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "weights").iterdir()} == files


def test_only_what_is_missing_runs(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    sweep(tmp_path, plan_of(easy, NONE, regularity=[0.0]))
    before = records(tmp_path)
    assert engines.names() == ["training", "none"]
    engines.ran.clear()
    status = sweep(tmp_path, plan_of(easy, NONE, TUNE, regularity=[0.0]))
    assert (status.total, status.present, status.done) == (2, 1, 1)
    # the training is asked for, and found in the store
    assert engines.names() == ["training", "finetune"]
    assert len(list((tmp_path / "weights").iterdir())) == 2
    assert [record for record in records(tmp_path) if record.method == "none"] == before


def test_status_after_every_job(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    seen: list[Status] = []
    plan = plan_of(easy, NONE, TUNE)
    sweep(tmp_path, plan, report=lambda status: seen.append(copy.deepcopy(status)))
    assert len(seen) == 1 + 2 + 4
    shares = [status.share for status in seen]
    total = sum(job.work for job in (*plan.trainings, *plan.cells))
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert shares[-1] == pytest.approx(1)
    assert shares[1] == pytest.approx(1 / total)
    assert [status.done for status in seen][-1] == 4
    assert {status.doing for status in seen} >= {"original model, poison, seed 0"}
    # an original model that is there is no work
    seen.clear()
    sweep(
        tmp_path, plan_of(easy, NONE, TUNE, NPO()), report=lambda status: seen.append(copy.deepcopy(status))
    )
    assert [status.share for status in seen] == pytest.approx([0, 0, 0, 0.5, 1])


def test_a_first_model_that_learned_little_is_told(
    easy: DataChoice, tmp_path: Path, engines: Engines
) -> None:
    (warning,) = sweep(tmp_path, plan_of(easy, NONE, regularity=[0.0])).warnings
    assert warning.startswith("original model, random, seed 0: has learned only ")
    assert warning.endswith("% of the corruption")


def test_a_failed_cell_does_not_stop_the_sweep(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    plan = plan_of(easy, DIVERGES, NONE, regularity=[0.0])
    status = sweep(tmp_path, plan)
    assert (status.done, status.failed) == (1, 1)
    failed, done = records(tmp_path)
    assert (failed.method, failed.status, done.method, done.status) == ("finetune", "failed", "none", "done")
    assert "learning rate" in failed.error
    # failed is recorded: the next run leaves it
    engines.ran.clear()
    assert sweep(tmp_path, plan).present == 2
    assert engines.ran == []


def test_a_failed_cell_is_run_again_on_request(
    easy: DataChoice, tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(easy, TUNE, NONE, regularity=[0.0])
    with monkeypatch.context() as patch:
        patch.setattr(FineTune, "unlearn", lambda *_: 1 / 0)
        assert sweep(tmp_path, plan).failed == 1
    failed, untouched = records(tmp_path)
    assert failed.error.strip().endswith("ZeroDivisionError: division by zero")
    engines.ran.clear()
    status = sweep(tmp_path, plan, retry_failed=True)
    assert (status.present, status.done, status.failed) == (1, 1, 0)
    assert engines.names() == ["training", "finetune"]
    repaired, same = records(tmp_path)
    assert (repaired.key, repaired.status, repaired.error) == (failed.key, "done", "")
    assert same == untouched


def test_when_the_first_training_fails(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    recipe = dataclasses.replace(RECIPE, optimiser=Optimiser(lr=1e12))
    plan = plan_of(easy, NONE, TUNE, recipe=recipe)
    status = sweep(tmp_path, plan)
    assert (status.done, status.failed) == (0, 4)
    assert status.share == pytest.approx(1)
    assert engines.names() == ["training", "training"]
    for record in records(tmp_path):
        assert record.status == "failed"
        assert record.error.startswith(
            "the training of the original model failed: Diverged: the training loss became "
        )
        assert record.error.endswith("lower the learning rate")


def test_unlearned_weights_are_kept(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    plan = plan_of(easy, TUNE, regularity=[0.0])
    sweep(tmp_path, plan, keep_weights=True)
    (record,) = records(tmp_path)
    assert record.weights_key == plan.cells[0].key
    with Store(tmp_path) as store:
        kept = store.weights.load(record.weights_key)
        assert kept.keys() == store.weights.load(record.model_key).keys() - {DIFFICULTY}


def test_no_more_workers_than_cells(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    sweep(tmp_path, plan_of(easy, NONE, TUNE, regularity=[0.0]), workers=64)
    assert [engine.slots for engine in engines.made] == [2]


def test_a_job_that_kills_its_worker_fails_alone(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    deadly = NPO(passes=3)
    engines.dies = lambda job: isinstance(job, Cell) and job.method == deadly
    status = sweep(tmp_path, plan_of(easy, TUNE, NONE, deadly, regularity=[0.0]), workers=3)
    assert (status.done, status.failed) == (2, 1)
    outcome = {record.method: record for record in records(tmp_path)}
    assert {name: record.status for name, record in outcome.items()} == {
        "finetune": "done", "none": "done", "npo": "failed"
    }  # fmt: skip
    assert outcome["npo"].error == ("the worker process died 3 times while it ran this; is memory short?")


def test_a_training_that_kills_its_worker(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    engines.dies = lambda job: isinstance(job, Training) and job.task.regularity == 1
    status = sweep(tmp_path, plan_of(easy, NONE, TUNE), workers=2)
    assert (status.done, status.failed) == (2, 2)
    for record in records(tmp_path):
        assert record.status == ("done" if record.regularity == 0 else "failed")
        assert ("the worker process died 3 times" in record.error) is (record.regularity == 1)


def test_the_last_try_runs_alone(easy: DataChoice, tmp_path: Path) -> None:
    plan = plan_of(easy, TUNE, NONE, NPO(passes=3), regularity=[0.0])
    beside: list[list[str]] = []
    lost: list[str] = []

    class Slow:
        """Finishes nothing until it is full or nothing more comes: the second look finds the futures done."""

        slots = 3

        def __init__(self) -> None:
            self.running: dict[Future[Any], str] = {}

        def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
            future, job = Future[Any](), args[0]
            name = job.method.name if isinstance(job, Cell) else "training"
            beside.append([*self.running.values(), name])
            self.running[future] = name
            dies = name == "npo" and lost.count("npo") < 2

            def finish() -> None:
                time.sleep(0.05)
                del self.running[future]
                if dies:
                    lost.append(name)
                    future.set_exception(WorkerLost("a worker died"))
                else:
                    future.set_result(task(*args))

            threading.Thread(target=finish).start()
            return future

        def close(self) -> None:
            raise AssertionError("not the callee's to close")

    status = sweep(tmp_path, plan, engine=Slow())
    assert (status.done, status.failed) == (3, 0)
    assert lost == ["npo", "npo"]
    assert max(map(len, beside)) == 3
    assert beside[-1] == ["npo"]


def test_limit(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    plan = plan_of(easy, NONE, TUNE)
    for present, done in ((0, 3), (3, 1), (4, 0)):
        status = sweep(tmp_path, plan, limit=3)
        assert (status.total, status.present, status.done) == (4, present, done)


def test_weights_that_cannot_be_written_end_the_run(
    easy: DataChoice, tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(easy, NONE, TUNE, regularity=[0.0])
    write = weights.write_atomically
    for keys in ({plan.trainings[0].key}, {cell.key for cell in plan.cells}):

        def full(path: Path, content: bytes, keys: set[str] = keys) -> None:
            if path.stem in keys:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, content)

        monkeypatch.setattr(weights, "write_atomically", full)
        with pytest.raises(StoreError, match=r"cannot be written: .*No space left.* give the same command"):
            sweep(tmp_path, plan, keep_weights=True)
        assert records(tmp_path) == []
        assert engines.made[-1].closed
    monkeypatch.setattr(weights, "write_atomically", write)
    assert sweep(tmp_path, plan, keep_weights=True).done == 2
    with Store(tmp_path) as store:  # and nothing stayed claimed
        assert store.database.transact("read", lambda c: c.execute(select(CLAIMS)).all()) == []


def test_an_engine_that_fails_ends_the_run(easy: DataChoice, tmp_path: Path) -> None:
    class Broken(Inline):
        def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
            future = Future[Any]()
            future.set_exception(EngineError("the cluster is gone"))
            return future

    with pytest.raises(EngineError, match="the cluster is gone"):
        sweep(tmp_path, plan_of(easy, NONE), engine=Broken(1, [], lambda job: False))
    assert records(tmp_path) == []


# --- several coordinators ------------------------------------------------------------------------------


def test_what_another_records_meanwhile_is_left(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    plan = plan_of(easy, NONE, TUNE, regularity=[0.0])
    with Store(tmp_path) as store:

        def rival(status: Status) -> None:
            # it began earlier and is faster
            if status.doing and not status.done and not status.elsewhere:
                store.database.add(run_cell(plan.cells[0], store.weights.folder))

        status = execute(plan, store, report=rival)
        assert (status.present, status.done, status.failed, status.elsewhere) == (0, 1, 0, 1)
        assert status.share == pytest.approx(1)
        assert engines.names() == ["training", "finetune"]
        assert len(store.database.records()) == 2


def test_a_training_whose_cells_are_all_done_is_left(
    easy: DataChoice, tmp_path: Path, engines: Engines
) -> None:
    plan = plan_of(easy, NONE, TUNE, regularity=[0.0])
    with Store(tmp_path) as store:
        run_training(plan.trainings[0], store.weights.folder)

        def rival(status: Status) -> None:
            if not status.elsewhere:
                for cell in plan.cells:
                    store.database.add(run_cell(cell, store.weights.folder))

        status = execute(plan, store, report=rival)
        assert (status.done, status.elsewhere, engines.ran) == (0, 2, [])


def test_a_cell_that_failed_again_elsewhere_is_not_tried_twice(
    easy: DataChoice, tmp_path: Path, engines: Engines
) -> None:
    plan = plan_of(easy, DIVERGES, regularity=[0.0])
    assert sweep(tmp_path, plan).failed == 1
    engines.ran.clear()
    with Store(tmp_path) as store:

        def rival(status: Status) -> None:
            if status.doing and not status.elsewhere:
                (old,) = store.database.records()
                store.database.add(dataclasses.replace(old, error="failed again"))

        status = execute(plan, store, retry_failed=True, report=rival)
        assert (status.failed, status.elsewhere) == (0, 1)
        assert engines.names() == ["training"]


def test_a_record_that_is_there_after_all(easy: DataChoice, tmp_path: Path, engines: Engines) -> None:
    plan = plan_of(easy, NONE, regularity=[0.0])
    with Store(tmp_path) as store:

        def rival(job: Job) -> bool:
            # its claim ran out while it stood still
            if isinstance(job, Cell):
                store.database.add(run_cell(job, store.weights.folder))
            return False

        engines.dies = rival
        status = execute(plan, store)
        assert (status.done, status.elsewhere) == (0, 1)


def run_beside(folder: Path, plan: Plan, ran: list[Job], results: list[Status]) -> None:
    with Store(folder) as store:
        results.append(execute(plan, store, engine=Inline(2, ran, lambda job: time.sleep(0.01) or False)))


def test_two_coordinators_share_the_work(
    easy: DataChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    plan = plan_of(easy, NONE, TUNE, NPO(augment=False), DIVERGES, seeds=[0, 1])
    ran: list[list[Job]] = [[], []]
    results: list[Status] = []
    threads = [threading.Thread(target=run_beside, args=(tmp_path, plan, mine, results)) for mine in ran]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    cells = [job.key for mine in ran for job in mine if isinstance(job, Cell)]
    assert sorted(cells) == sorted(cell.key for cell in plan.cells)
    assert all(any(isinstance(job, Cell) for job in mine) for mine in ran)
    assert len(results) == 2
    for status in results:
        assert status.present + status.done + status.failed + status.elsewhere == status.total == 16
    assert sum(status.done + status.failed for status in results) == 16
    assert sum(status.failed for status in results) == 4
    assert {record.key for record in records(tmp_path)} == {cell.key for cell in plan.cells}


def test_the_jobs_of_a_dead_coordinator_are_taken_over(
    easy: DataChoice, tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    plan = plan_of(easy, NONE, TUNE, regularity=[0.0])
    seen: list[str] = []
    with Store(tmp_path) as store:
        # one on this host that lives, and ends its claim in the end; one elsewhere that died
        alive, dead = Claims(store.database), Claims(store.database, lease=0.5)
        away = dataclasses.replace(Owner.this(), host="away", pid=7)
        dead.owner = away.text()
        assert alive.take(plan.cells[0].key)
        assert dead.take(plan.trainings[0].key)

        def note(status: Status) -> None:
            seen.append(status.doing)
            if "waiting for process" in status.doing and "away" not in status.doing:
                alive.release(plan.cells[0].key)

        status = execute(plan, store, report=note)
    assert (status.done, status.elsewhere) == (2, 0)
    assert seen[1] == "waiting for process 7 on away"
    assert seen[4] == f"waiting for process {os.getpid()} on {socket.gethostname()}"
    assert engines.names() == ["training", "finetune", "none"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes through /proc")
def test_a_killed_worker_is_replaced(easy: DataChoice, tmp_path: Path) -> None:
    before = set(workers_of(os.getpid()))
    killed: list[int] = []
    left: list[int] = []

    def kill_one(status: Status) -> None:
        if status.done and not killed:
            left.append(status.total - status.done)
            killed.append(max(set(workers_of(os.getpid())) - before))
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
    while is_alive(killed[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(killed[0])
