from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from expunge.engine import LocalEngine, WorkerLost
from expunge.errors import Diverged
from worker_processes import is_alive

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(2)
    yield made
    made.close()


def ends(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def diverge(text: str) -> None:
    raise Diverged(text)


def say_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def meet(folder: Path, name: str, number: int) -> int:
    """Wait until ``number`` calls are here at once, and return the process's id."""
    (folder / name).touch()
    deadline = time.monotonic() + 30
    while len(list(folder.iterdir())) < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return os.getpid()


def said(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


@pytest.mark.slow
def test_results_errors_and_losses(engine: LocalEngine, tmp_path: Path) -> None:
    assert engine.slots == 2
    neighbour = engine.submit(os.getpid).result(60)
    assert neighbour != os.getpid()
    with pytest.raises(Diverged, match="the loss"):
        engine.submit(diverge, "the loss").result(60)
    # one is killed in the middle: the other goes on, the killed one is replaced
    doomed = engine.submit(say_and_sleep, tmp_path / "doomed")
    victim = said(tmp_path / "doomed")
    beside = engine.submit(time.sleep, 0.5)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="the worker process ended"):
        doomed.result(60)
    assert beside.result(60) is None
    # a replacement that starts slowly would leave both calls to the other one, were they not to meet
    (tmp_path / "meeting").mkdir()
    calls = [engine.submit(meet, tmp_path / "meeting", name, 2) for name in "ab"]
    pids = {call.result(60) for call in calls}
    assert len(pids) == 2
    assert victim not in pids
    # one that dies while it has nothing to do harms no job
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        assert ends(pid)
    time.sleep(0.3)
    assert engine.submit(abs, -3).result(60) == 3
    engine.close()
    engine.close()


def test_closing_ends_what_runs(engine: LocalEngine, tmp_path: Path) -> None:
    running = engine.submit(say_and_sleep, tmp_path / "pid")
    pid = said(tmp_path / "pid")
    engine.close()
    assert ends(pid)
    with pytest.raises(WorkerLost):
        running.result(10)


COORDINATOR = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_engine import say_and_sleep
from expunge.engine import LocalEngine
if __name__ == "__main__":
    engine = LocalEngine(1)
    engine.submit(say_and_sleep, Path({told!r}))
    time.sleep(60)
"""


def test_workers_end_with_a_killed_coordinator(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR.format(tests=str(Path(__file__).parent), told=str(told)))
    coordinator = subprocess.Popen([sys.executable, script])
    try:
        worker = said(told)
    finally:
        coordinator.kill()
        coordinator.wait(60)
    assert ends(worker)
