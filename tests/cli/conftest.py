from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import expunge.sweep.execute as execution


class OneThread:
    """An engine on a thread of this process."""

    def __init__(self, workers: int, threads: int) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.slots = 1

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        return self._pool.submit(task, *args)

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the cells on a thread of this process; starting a worker process takes seconds."""
    monkeypatch.setattr(execution, "LocalEngine", OneThread)
