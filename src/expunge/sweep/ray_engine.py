"""The jobs of a sweep on the machines of a Ray cluster."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from expunge.engine import EngineError, WorkerLost
from expunge.errors import InvalidInput
from expunge.optional import load_extra


class RayEngine:
    """Workers on a Ray cluster.

    They read the data where their own machine has it and exchange weights through the weight store, which
    must be a place that all of them reach: a shared folder or an fsspec URL. If this process is already
    connected to a cluster, that one is used and left connected.

    Args:
        address: "auto" for the cluster this machine belongs to, or its address.
        cpus: cores for each job; also the number of threads it computes with.
        gpus: GPUs for each job; a fraction lets jobs share one.

    Raises:
        InvalidInput: ray is not installed, no cluster answers, or no part of it has room for a job.
    """

    def __init__(self, address: str = "auto", *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        if cpus <= 0 or gpus < 0:
            raise InvalidInput(
                f"a job needs a number of cores above 0 and of GPUs from 0, got {cpus}, {gpus}"
            )
        self._ray = load_extra("ray", "ray", "ray", "a sweep on a cluster")
        self._own = not self._ray.is_initialized()
        if self._own:
            try:
                _knock(address)
                self._ray.init(address=address, log_to_driver=False, logging_level="WARNING")
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise InvalidInput(
                    f"no Ray cluster answers at {address!r} ({error}); start one with 'ray start --head', "
                    "or give the address of one that runs"
                ) from error
        self._needs = {name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need}
        # How often a job is tried again is for the coordinator to decide.
        self._carry_out = self._ray.remote(_carry_out).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self._threads = max(1, int(cpus))
        self._unfinished: dict[Future[Any], Any] = {}
        if not self._room():
            self.close()
            wanted = ", ".join(f"{need:g} {name}" for name, need in self._needs.items())
            raise InvalidInput(
                f"no machine of the Ray cluster at {address!r} has {wanted} for a job; ask for less or add one"
            )

    @property
    def slots(self) -> int:
        """How many jobs the machines have room for now, and one to come after."""
        return self._room() + 1

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """See :class:`expunge.engine.Engine`."""
        reference = self._carry_out.remote(self._threads, task, *args)
        outer: Future[Any] = Future()

        def settle(done: Future[Any]) -> None:
            self._unfinished.pop(outer, None)
            error = done.exception()
            if error is None:
                outer.set_result(done.result())
            else:
                outer.set_exception(self._meaning(error))

        self._unfinished[outer] = reference
        reference.future().add_done_callback(settle)
        return outer

    def close(self) -> None:
        """See :class:`expunge.engine.Engine`."""
        for reference in list(self._unfinished.values()):
            self._ray.cancel(reference, force=True)
        if self._own:
            self._ray.shutdown()

    def _room(self) -> int:
        return sum(
            int(min(node["Resources"].get(name, 0.0) / need for name, need in self._needs.items()))
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def _meaning(self, error: BaseException) -> BaseException:
        known = self._ray.exceptions
        if isinstance(error, known.RayTaskError):  # what the job itself raised
            cause = error.cause
            return cause if isinstance(cause, BaseException) else error
        lost = (
            known.WorkerCrashedError,
            known.NodeDiedError,
            known.OutOfMemoryError,
            known.ObjectLostError,
            known.OwnerDiedError,
        )
        if isinstance(error, lost):
            return WorkerLost(f"{type(error).__name__}: {error}")
        return EngineError(
            f"the Ray cluster failed ({type(error).__name__}: {error}); see that it runs, then give the same "
            "command again: finished records are kept"
        )


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at ``address``: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _carry_out(threads: int, task: Callable[..., Any], *args: Any) -> Any:
    import torch

    torch.set_num_threads(threads)
    return task(*args)
