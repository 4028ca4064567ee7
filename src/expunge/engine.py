"""Where jobs are carried out: processes of this machine, or another engine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from expunge.errors import ExpungeError
from expunge.processes import start_method, take_over
from expunge.store.owner import Owner


class WorkerLost(Exception):
    """The process that carried out a job ended in the middle of it."""


class EngineError(ExpungeError):
    """The engine itself cannot go on."""


class Engine(Protocol):
    """Carries out functions on workers."""

    @property
    def slots(self) -> int:
        """How many jobs it carries out at a time; may change while it runs."""

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Start ``task(*args)``; never called with ``slots`` jobs unfinished.

        The future raises what ``task`` raises, :class:`WorkerLost` if the worker ended before it was
        finished, or :class:`EngineError`. A worker that is lost is replaced without being asked.
        """

    def close(self) -> None:
        """End the workers, and with them what they are doing."""


class LocalEngine:
    """Worker processes on this machine; they end with this process, however it ends.

    Args:
        workers: how many.
        threads: that each computes with; by default its share of the cores.
    """

    def __init__(self, workers: int, threads: int | None = None) -> None:
        self._threads = threads or max(1, (os.cpu_count() or 1) // workers)
        self.slots = workers
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """See :class:`Engine`."""
        worker = self._idle.pop() if self._idle else self._hire(task)
        try:
            inner = worker.pool.submit(task, *args)
        except BrokenProcessPool:  # it died while it had nothing to do: no job is to blame
            self._dismiss(worker)
            worker = self._hire(task)
            inner = worker.pool.submit(task, *args)
        outer: Future[Any] = Future()

        def settle(done: Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or isinstance(error, BrokenProcessPool):
                self._dismiss(worker)
                outer.set_exception(WorkerLost("the worker process ended"))
                return
            # Before the result is known: who waits for it may hand out the next job at once.
            self._idle.append(worker)
            if error is None:
                outer.set_result(done.result())
            else:
                outer.set_exception(error)

        inner.add_done_callback(settle)
        return outer

    def close(self) -> None:
        """See :class:`Engine`."""
        for worker in list(self._all):
            self._dismiss(worker)

    def _hire(self, task: Callable[..., Any]) -> _Worker:
        own = [] if task.__module__ == "__main__" else [task.__module__]
        context = multiprocessing.get_context(start_method("torch", *own))
        worker = _Worker(self._threads, context)
        self._all.add(worker)
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.close()


class _Worker:
    """A pool of one process: if it dies, it is known which job it did, and no other job is lost."""

    def __init__(self, threads: int, context: BaseContext) -> None:
        # Only this process holds the other end, so the system closes it when this process ends.
        watched, self._lifeline = context.Pipe(duplex=False)
        self.pool = ProcessPoolExecutor(
            1, context, initializer=_start_worker,
            initargs=(threads, watched, Owner.this(), dict(os.environ)),
        )  # fmt: skip

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._lifeline.close()


def _start_worker(threads: int, watched: Connection, coordinator: Owner, environment: dict[str, str]) -> None:
    """Limit the worker to its share of the cores and end it with its coordinator, whose environment it gets."""

    def watch() -> None:
        # Without this a worker whose coordinator was killed would wait for work for ever. A process that
        # was forked off may keep the pipe open, so the coordinator is looked for as well.
        try:
            while not watched.poll(1.0) and not coordinator.is_gone():
                pass
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    take_over(environment)

    import torch

    torch.set_num_threads(threads)
