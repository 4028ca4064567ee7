"""Carry out a plan on workers; only the coordinator, this process, writes records."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

import torch

from expunge.engine import Engine, EngineError, LocalEngine, WorkerLost
from expunge.store.claims import Claims
from expunge.store.database import AlreadyDone
from expunge.store.record import LEARNED_ENOUGH, Record
from expunge.store.store import Store
from expunge.store.weights import CannotWrite
from expunge.sweep.plan import Cell, Plan, Reference, Training
from expunge.sweep.run import failed_record, learned_corruption, run_cell, run_reference, run_training
from expunge.tasks.base import Task
from expunge.tasks.regularity import regularity_name

_ATTEMPTS = 3
_LOOK_SECONDS = 0.5
"""How often it is looked whether what another coordinator holds has become free."""
_SMALL = 28 * 28
"""Pixels of an image up to which a worker gets one thread."""


@dataclass
class Status:
    """Where a sweep stands; handed to the callback after every job.

    Attributes:
        total: cells of the plan.
        present: cells whose record was in the store already.
        done: cells finished in this run.
        failed: cells that failed in this run.
        elsewhere: cells that another coordinator finished during this run.
        share: share of this run's work that is done, in [0, 1].
        doing: what was finished last.
        warnings: original models that have not learned the corruption.
    """

    total: int
    present: int = 0
    done: int = 0
    failed: int = 0
    elsewhere: int = 0
    share: float = 0.0
    doing: str = ""
    warnings: list[str] = field(default_factory=list)


def execute(
    plan: Plan,
    store: Store,
    *,
    workers: int = 1,
    keep_weights: bool = False,
    retry_failed: bool = False,
    report: Callable[[Status], None] = lambda status: None,
    engine: Engine | None = None,
    limit: int | None = None,
    recorded: Callable[[Record], None] = lambda record: None,
) -> Status:
    """Run every cell whose record is missing from ``store``.

    A failed cell counts as recorded, unless ``retry_failed``.

    A record is written as soon as its cell is finished, so that an interruption loses the cells in flight
    and no other. A worker that dies is replaced and its job is tried again, three times at the most; the
    third time nothing runs beside it.

    Several calls, also on several machines, may work on one store at the same time: each claims a job before
    it hands it out, leaves what others have claimed, and in the end waits for them or, if they died, takes
    over.

    Args:
        plan: what is to be there in the end.
        store: of records and weights.
        workers: processes on this machine, unless there is an ``engine``.
        keep_weights: also store every unlearned model.
        retry_failed: run failed cells again.
        report: called after every job.
        engine: where the jobs run instead; left open.
        limit: run at most so many of the missing cells, at least one.
        recorded: called with every record of this run, once it is in the store.

    Raises:
        StoreError: a record or weights cannot be written, or the database is lost.
        EngineError: the engine cannot go on.
    """
    before = {record.key: record for record in store.database.records("failed")} if retry_failed else {}
    known = store.database.keys("done" if retry_failed else None)
    missing = [cell for cell in plan.cells if cell.key not in known]
    status = Status(len(plan.cells), len(plan.cells) - len(missing))
    report(status)
    cells = missing[:limit]
    if cells:
        processes = max(1, min(workers, len(cells)))
        used = LocalEngine(processes, worker_threads(plan, processes)) if engine is None else engine
        try:
            with Claims(store.database) as claims:
                _Run(cells, store, claims, used, before, keep_weights, report, status, recorded).go()
        finally:
            if engine is None:
                used.close()
    status.warnings.extend(_unlearned(plan, store))
    return status


def worker_threads(plan: Plan, workers: int) -> int:
    """Return the number of threads for each of ``workers`` processes on this machine.

    $OMP_NUM_THREADS where it is a number; else one for images of at most 28 x 28 pixels on a processor, and for
    others an equal share of the cores, but no more than torch is set to in this process.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    # The steps of such networks take a millisecond or so, and threads wait for each other at every layer; where
    # another program holds a core they spin meanwhile. Three epochs of a ConvNet on digits, batches of 128, on
    # two cores that were also used by others: 4 s with one thread, 21 to 27 s with two.
    if all(
        training.numerics.device == "cpu" and math.prod(training.data.load("cpu").shape[1:]) <= _SMALL
        for training in plan.trainings
    ):
        return 1
    return max(1, min((os.cpu_count() or 1) // workers, torch.get_num_threads()))


def _unlearned(plan: Plan, store: Store) -> list[str]:
    """Name the original models, of this run or an earlier one, that have not learned their corruption."""
    warnings = []
    for training in plan.trainings:
        # Example-tied dropout keeps corruption out of the path that is measured: that is its purpose.
        if not store.weights.has(training.key) or training.recipe.example_tied is not None:
            continue
        learned = learned_corruption(store.weights, training.key)
        if learned is not None and learned < LEARNED_ENOUGH:
            which = f"original model, {_where(training.task)}, seed {training.seed}"
            warnings.append(f"{which}: has learned only {learned:.0%} of the corruption")
    return warnings


def _where(task: Task) -> str:
    regularity = getattr(task, "regularity", None)
    return f"forget {task.kind}" if regularity is None else regularity_name(regularity)


def _role(job: Training | Reference) -> str:
    return "original" if isinstance(job, Training) else job.role.replace("_", " ")


_Job = Training | Reference | Cell
_Shared = Training | Reference
"""What several cells wait for."""


class _Run:
    def __init__(
        self, cells: list[Cell], store: Store, claims: Claims, engine: Engine, before: dict[str, Record],
        keep_weights: bool, report: Callable[[Status], None], status: Status, recorded: Callable[[Record], None],
    ) -> None:  # fmt: skip
        self.store, self.claims, self.engine, self.before = store, claims, engine, before
        self.keep_weights, self.report, self.status, self.recorded = keep_weights, report, status, recorded
        needed = Plan.of(cells)
        shared: list[_Shared] = [*needed.trainings, *needed.references]
        self.finished: set[str] = set()
        # Trained models come from the store where they are there; loading one is no work.
        self.ready: list[_Job] = [*needed.trainings]
        self.blocked: list[Reference | Cell] = [*needed.references, *needed.cells]
        self._unblock()
        self.held: list[_Job] = []
        self.next_look = 0.0
        self.running: dict[Future[Any], _Job] = {}
        self.attempts: dict[str, int] = {}
        self.shared_work = {job.key: 0.0 if store.weights.has(job.key) else job.work for job in shared}
        self.work_done = 0.0
        self.work = sum(cell.work for cell in cells) + sum(self.shared_work.values())

    def go(self) -> None:
        while self.ready or self.held or self.running:
            self._hand_out()
            if self.running:
                timeout = _LOOK_SECONDS if self.held else None
                for future in wait(list(self.running), timeout, FIRST_COMPLETED).done:
                    self._settle(self.running.pop(future), future)
            elif self.held:
                self._wait_for_others()

    def _hand_out(self) -> None:
        """Give the engine as many jobs as it takes; few, so that the longest job goes first at any time."""
        if self.held and time.monotonic() >= self.next_look:
            self.ready += self.held
            self.held = []
            self.next_look = time.monotonic() + _LOOK_SECONDS
        self.ready.sort(key=lambda job: (self._last_try(job), isinstance(job, Cell), -job.work))
        while self.ready:
            # Workers that die may be short of memory: the last try has all of it.
            alone = any(map(self._last_try, (self.ready[0], *self.running.values())))
            if len(self.running) >= (1 if alone else self.engine.slots):
                return
            job = self.ready.pop(0)
            if not self.claims.take(job.key):
                self.held.append(job)
            elif not self._was_done_elsewhere(job):
                self.running[self._submit(job)] = job

    def _submit(self, job: _Job) -> Future[Any]:
        folder = self.store.weights.folder
        if isinstance(job, Training):
            return self.engine.submit(run_training, job, folder)
        if isinstance(job, Reference):
            return self.engine.submit(run_reference, job, folder)
        return self.engine.submit(run_cell, job, folder, self.keep_weights)

    def _last_try(self, job: _Job) -> bool:
        return self.attempts.get(job.key, 0) == _ATTEMPTS - 1

    def _was_done_elsewhere(self, job: _Job) -> bool:
        """Leave out what another coordinator has recorded since this run began; whether nothing is left."""
        cells = self._cells_of(job)
        now = self.store.database.get_many(cell.key for cell in cells)
        gone = [cell for cell in cells if now.get(cell.key) != self.before.get(cell.key)]
        left = [cell for cell in cells if cell not in gone]
        self.status.elsewhere += len(gone)
        self.work_done += sum(cell.work for cell in gone)
        self._drop(gone)
        if left:
            return False
        if not isinstance(job, Cell):
            # A reference that waited for this job has no cell left either, and is dropped in its turn.
            self._settled(job)
        self.claims.release(job.key)
        if gone:
            self._tell(f"{self.status.elsewhere} cells by another coordinator")
        return True

    def _wait_for_others(self) -> None:
        others = self.claims.holders(job.key for job in self.held)
        doing = f"waiting for {' and '.join(others)}" if others else self.status.doing
        if doing != self.status.doing:
            self._tell(doing)
        time.sleep(max(0.0, self.next_look - time.monotonic()))

    def _settle(self, job: _Job, future: Future[Any]) -> None:
        if isinstance(future.exception(), WorkerLost):
            self._retry(job)
        elif isinstance(job, Cell):
            self._finished(job, future)
        else:
            self._trained(job, future)

    def _trained(self, job: _Shared, future: Future[Any]) -> None:
        try:
            future.result()
        except (CannotWrite, EngineError):
            raise
        except Exception as error:
            told = f"the training of the {_role(job)} model failed: {type(error).__name__}: {error}"
            self._fail(self._cells_of(job), told)
        self._settled(job)
        self.claims.release(job.key)
        self._tell(f"{_role(job)} model, {_where(job.task)}, seed {job.task.seed}")

    def _settled(self, job: _Shared) -> None:
        """Note that an original model or a reference is through, and free what waits for nothing else."""
        self.finished.add(job.key)
        self.work_done += self.shared_work[job.key]
        self._unblock()

    def _unblock(self) -> None:
        free = [job for job in self.blocked if self.finished.issuperset(job.requires)]
        self.blocked = [job for job in self.blocked if not self.finished.issuperset(job.requires)]
        self.ready += free

    def _cells_of(self, job: _Job) -> list[Cell]:
        """The cells that are lost with a job: itself, or those that wait for it."""
        if isinstance(job, Cell):
            return [job]
        return [cell for cell in self.blocked if isinstance(cell, Cell) and job.key in cell.requires]

    def _drop(self, cells: list[Cell]) -> None:
        gone = {cell.key for cell in cells}
        self.blocked = [job for job in self.blocked if job.key not in gone]

    def _finished(self, job: Cell, future: Future[Any]) -> None:
        record = future.result()
        assert isinstance(record, Record)
        self._write(record)
        self.work_done += job.work
        known = "" if record.discovery is None else f"{record.discovery:.0%} known, "
        self._tell(f"{record.method}, {_where(job.task)}, {known}seed {record.seed}")

    def _retry(self, job: _Job) -> None:
        self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
        if self.attempts[job.key] < _ATTEMPTS:
            self.ready.append(job)
            return
        told = f"the worker process died {_ATTEMPTS} times while it ran this; is memory short?"
        self._fail(self._cells_of(job), told)
        if not isinstance(job, Cell):
            self._settled(job)
        self.claims.release(job.key)
        self._tell(f"given up after {_ATTEMPTS} lost workers: {_where(job.task)}, seed {job.seed}")

    def _fail(self, cells: list[Cell], error: str) -> None:
        self._drop(cells)
        for cell in cells:
            self._write(failed_record(cell, error))
            self.work_done += cell.work

    def _write(self, record: Record) -> None:
        try:
            self.store.database.add(record, owner=self.claims.owner)
        except AlreadyDone:  # this process stood still until its claim ran out, and another took over
            self.status.elsewhere += 1
            return
        if record.status == "done":
            self.status.done += 1
        else:
            self.status.failed += 1
        self.recorded(record)

    def _tell(self, doing: str) -> None:
        self.status.doing = doing
        self.status.share = min(1.0, self.work_done / self.work) if self.work else 1.0
        self.report(self.status)
