"""Carry out a plan on worker processes; only the coordinator writes records."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.benchmark.plan import Cell, Plan, Training
from expunge.benchmark.run import failed_record, learned_corruption, run_cell, run_training
from expunge.store.record import Record
from expunge.store.store import Store
from expunge.tasks.base import Task
from expunge.tasks.regularity import regularity_name

LEARNED_ENOUGH = 0.95
"""Share of the corruption a first model must have learned for its cells to mean something."""
_ATTEMPTS = 3


@dataclass
class Status:
    """Where a sweep stands; handed to the callback after every job.

    Attributes:
        total: cells of the plan.
        present: cells whose record was in the store already.
        done: cells finished in this run.
        failed: cells that failed in this run.
        share: share of this run's work that is done, in [0, 1].
        doing: what was finished last.
        warnings: first models that have not learned the corruption.
    """

    total: int
    present: int = 0
    done: int = 0
    failed: int = 0
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
) -> Status:
    """Run every cell whose record is missing from ``store``.

    A failed cell counts as recorded, unless ``retry_failed``.

    A record is written as soon as its cell is finished, so that an interruption loses the cells in flight
    and no other. A worker that dies is replaced and its jobs are tried again, three times at the most.

    Raises:
        StoreError: a record cannot be written.
    """
    known = store.database.keys("done" if retry_failed else None)
    missing = [cell for cell in plan.cells if cell.key not in known]
    run = _Run(missing, store, keep_weights, report, Status(len(plan.cells), len(plan.cells) - len(missing)))
    run.report(run.status)
    if missing:
        run.go(max(1, min(workers, len(missing))))
    run.status.warnings.extend(_unlearned(plan, store))
    return run.status


def _unlearned(plan: Plan, store: Store) -> list[str]:
    """Name the first models, of this run or an earlier one, that have not learned their corruption."""
    warnings = []
    for training in plan.trainings:
        # Example-tied dropout keeps corruption out of the path that is measured: that is its purpose.
        if not store.weights.has(training.key) or training.recipe.example_tied is not None:
            continue
        learned = learned_corruption(store.weights, training.key)
        if learned is not None and learned < LEARNED_ENOUGH:
            warnings.append(
                f"first model, {_where(training.task)}, seed {training.seed}: has learned "
                f"only {learned:.0%} of the corruption"
            )
    return warnings


def _where(task: Task) -> str:
    regularity = getattr(task, "regularity", None)
    return f"forget {task.kind}" if regularity is None else regularity_name(regularity)


class _Run:
    def __init__(
        self, cells: list[Cell], store: Store, keep_weights: bool,
        report: Callable[[Status], None], status: Status,
    ) -> None:  # fmt: skip
        self.store, self.keep_weights, self.report, self.status = store, keep_weights, report, status
        self.folder = Path(store.weights.folder)
        self.waiting: dict[str, list[Cell]] = {}
        trainings: dict[str, Training] = {}
        for cell in cells:
            self.waiting.setdefault(cell.training.key, []).append(cell)
            trainings[cell.training.key] = cell.training
        # Trained models come from the store where they are there; loading one is no work.
        self.ready: list[Training | Cell] = list(trainings.values())
        self.attempts: dict[str, int] = {}
        self.training_work = {
            key: 0.0 if store.weights.has(key) else training.work for key, training in trainings.items()
        }
        self.work_done = 0.0
        self.work = sum(cell.work for cell in cells) + sum(self.training_work.values())

    def go(self, workers: int) -> None:
        threads = max(1, (os.cpu_count() or 1) // workers)
        while self.ready:
            pool = ProcessPoolExecutor(
                workers,
                multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(threads, os.getpid()),
            )
            running: dict[Future[Any], Training | Cell] = {}
            try:
                self._drain(pool, running, workers)
            except BrokenProcessPool:
                # A worker was killed, by the system or by hand. What it held goes back in the queue.
                for job in running.values():
                    self._retry(job)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _drain(
        self, pool: ProcessPoolExecutor, running: dict[Future[Any], Training | Cell],
        workers: int,
    ) -> None:  # fmt: skip
        while self.ready or running:
            # Few jobs are handed out at a time: the pool takes them in order, and the longest should go
            # first, whichever trainings have finished by then.
            # What was in flight when a worker died goes alone: the job that kills its worker must not take
            # its neighbours with it a second time.
            self.ready.sort(key=lambda job: (job.key not in self.attempts, isinstance(job, Cell), -job.work))
            suspects = any(job.key in self.attempts for job in (*self.ready, *running.values()))
            while self.ready and len(running) < (1 if suspects else workers + 1):
                # Taken off the list afterwards: a pool that has just broken refuses the job.
                future = self._submit(pool, self.ready[0])
                running[future] = self.ready.pop(0)
            for future in wait(list(running), return_when=FIRST_COMPLETED).done:
                job = running[future]
                if isinstance(job, Training):
                    self._trained(job, future)
                else:
                    self._finished(job, future)
                del running[future]
                self.status.share = min(1.0, self.work_done / self.work) if self.work else 1.0
                self.report(self.status)

    def _submit(self, pool: ProcessPoolExecutor, job: Training | Cell) -> Future[Any]:
        if isinstance(job, Training):
            return pool.submit(run_training, job, self.folder)
        return pool.submit(run_cell, job, self.folder, self.keep_weights)

    def _trained(self, job: Training, future: Future[Any]) -> None:
        cells = self.waiting[job.key]
        name = f"first model, {_where(job.task)}, seed {job.seed}"
        try:
            future.result()
        except BrokenProcessPool:
            raise
        except Exception as error:
            for cell in cells:
                self._write(
                    failed_record(cell, f"the first training failed: {type(error).__name__}: {error}")
                )
                self.work_done += cell.work
        else:
            self.ready.extend(cells)
        self.work_done += self.training_work[job.key]
        del self.waiting[job.key]
        self.status.doing = name

    def _finished(self, job: Cell, future: Future[Any]) -> None:
        record = future.result()
        assert isinstance(record, Record)
        self._write(record)
        self.work_done += job.work
        known = "" if record.discovery is None else f"{record.discovery:.0%} known, "
        self.status.doing = f"{record.method}, {_where(job.task)}, {known}seed {record.seed}"

    def _write(self, record: Record) -> None:
        self.store.database.add(record)
        if record.status == "done":
            self.status.done += 1
        else:
            self.status.failed += 1

    def _retry(self, job: Training | Cell) -> None:
        self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
        if self.attempts[job.key] < _ATTEMPTS:
            self.ready.append(job)
            return
        message = f"the worker process died {_ATTEMPTS} times while it ran this; is memory short?"
        for cell in [job] if isinstance(job, Cell) else self.waiting.pop(job.key):
            self._write(failed_record(cell, message))


def _start_worker(threads: int, coordinator: int) -> None:
    """Limit the worker to its share of the cores and end it with its coordinator, a process id."""
    import torch

    torch.set_num_threads(threads)

    def watch() -> None:
        # Without this a worker whose coordinator was killed would wait for work for ever. Its id is handed
        # over: by now the coordinator may be gone and the parent another.
        while os.getppid() == coordinator:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
