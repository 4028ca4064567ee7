"""How rows are read: by which processes, ahead of their use, and whether they are kept."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from expunge.data.cache import CACHES, Room, room_for
from expunge.errors import DataError, ExpungeError, InvalidInput

T = TypeVar("T")

_GLANCE = 8
"""Rows up to which a first batch is read here: whoever only looks at the data starts no process."""


class Plan(NamedTuple):
    """Rows to be read together, and which batch of its source that is."""

    rows: list[int]
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How the rows of a data set are read.

    Args:
        workers: processes that read ahead; with 0 this one reads. The order of rows and their values are the same.
        cache: where rows stay once they are read: "memory"; "disk", a temporary file; the name of a folder, for that
            file; "none", then they are read again each time; or "auto": in memory, else on disk, else nowhere, and
            nowhere if a data set draws random numbers.
        memory: bytes of rows at most that "auto" keeps in memory; by default half of what is free.

    Raises:
        InvalidInput: a number below 0, or a cache that is neither a word of these nor a folder.
    """

    workers: int = 0
    cache: str = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("memory", self.memory)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise InvalidInput(f"{name} must be a whole number, at least 0, got {value!r}")
        if self.cache not in CACHES and not Path(self.cache).expanduser().is_dir():
            raise InvalidInput(
                f"cache must be {', '.join(CACHES)} or a folder that exists, got {self.cache!r}"
            )

    def room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Room:
        """Return where rows ``shape`` = (N, ...) are to stay; a disk that was named and has too little is refused."""
        return room_for(shape, dtype, self.cache, self.memory)

    def ahead(
        self, read: Callable[[Plan], T], plans: Iterable[Plan], device: torch.device | str = "cpu"
    ) -> Iterator[T]:
        """Yield ``read(plan)`` of every plan, in order; workers are some batches ahead.

        ``read`` raises :class:`DataError` for a row that cannot be used, here as in a worker. Results for a GPU are put
        into pinned memory.

        Raises:
            DataError: of ``read``.
            InvalidInput: what ``read`` needs cannot be handed to another process.
            ExpungeError: a worker ended.
        """
        if self.workers == 0:
            yield from map(read, plans)
            return
        left = iter(plans)
        first = next(left, None)
        if first is not None and len(first.rows) <= _GLANCE:
            yield read(first)
            first = next(left, None)
        if first is not None:
            yield from self._by_workers(read, itertools.chain([first], left), torch.device(device))

    def _by_workers(
        self, read: Callable[[Plan], T], plans: Iterator[Plan], device: torch.device
    ) -> Iterator[T]:
        try:
            results = iter(
                DataLoader(
                    _Answers(read),
                    batch_size=None,
                    sampler=plans,
                    num_workers=self.workers,
                    pin_memory=device.type in ("cuda", "xpu"),
                    # Else the loader draws its own seed from the global generator, and dropout would differ.
                    generator=torch.Generator(),
                )
            )
        # A process that may have no children raises an AssertionError.
        except (pickle.PicklingError, AttributeError, TypeError, AssertionError, OSError) as error:
            raise InvalidInput(
                f"the data cannot be read by worker processes ({type(error).__name__}: {error}); workers=0 "
                "(--workers 0) reads it in this one"
            ) from error
        try:
            for found in results:
                if isinstance(found, DataError):
                    raise found
                yield found
        except RuntimeError as error:
            raise ExpungeError(
                f"a process that read the data ended ({error}); workers=0 (--workers 0) reads it in this one"
            ) from error
        finally:
            del results  # which ends the workers, while the error may live on


class _Answers(Dataset[Any]):
    """What ``read`` makes of a plan, or its error: raised in a worker it would come back in other words."""

    def __init__(self, read: Callable[[Plan], Any]) -> None:
        self.read = read

    def __getitem__(self, plan: Plan) -> Any:
        try:
            return self.read(plan)
        except DataError as error:
            return error


def in_order(count: int, size: int = 64) -> Iterator[Plan]:
    """Return the plans of one pass over ``count`` rows."""
    for number, start in enumerate(range(0, count, size)):
        yield Plan(list(range(start, min(count, start + size))), number)
