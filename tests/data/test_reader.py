from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.data.reader import Plan, Reader, in_order
from expunge.errors import DataError, ExpungeError, InvalidInput


def doubled(plan: Plan) -> list[int]:
    return [2 * row for row in plan.rows]


def process(plan: Plan) -> int:
    del plan
    return os.getpid()


def left_alive() -> list[Any]:
    """Child processes that are there ten seconds later."""
    for child in multiprocessing.active_children():
        child.join(10)
    return multiprocessing.active_children()


def test_a_pass_in_order() -> None:
    assert list(in_order(5, 2)) == [Plan([0, 1], 0), Plan([2, 3], 1), Plan([4], 2)]
    assert list(in_order(0)) == []


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("size", [5, 20])
def test_results_come_in_the_order_of_the_plans(workers: int, size: int) -> None:
    reader = Reader(workers=workers)
    found = list(reader.ahead(doubled, in_order(100, size)))
    assert [row for rows in found for row in rows] == list(range(0, 200, 2))
    assert list(reader.ahead(doubled, [])) == []


def test_who_reads() -> None:
    """A glance, which is a few rows, starts no process."""
    here = os.getpid()
    assert set(Reader().ahead(process, in_order(100, 20))) == {here}
    assert next(Reader(workers=2).ahead(process, in_order(100, 8))) == here
    assert len(set(Reader(workers=2).ahead(process, in_order(100, 20))) - {here}) == 2
    assert left_alive() == []


def test_plans_are_looked_at_as_they_are_needed() -> None:
    seen = []

    def plans() -> Any:
        for plan in in_order(1000, 1):
            seen.append(plan)
            yield plan

    next(Reader(workers=2).ahead(doubled, plans()))
    assert len(seen) == 1


def fails(plan: Plan, how: str) -> list[int]:
    if 40 in plan.rows:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("row 40 is broken") if how == "data" else KeyError("a mistake of ours")
    return plan.rows


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("data", DataError, "^row 40 is broken$"),
        ("code", KeyError, "a mistake of ours"),
        ("killed", ExpungeError, r"a process that read the data ended .*workers=0"),
    ],
)
def test_failures_in_a_worker(how: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        list(Reader(workers=2).ahead(functools.partial(fails, how=how), in_order(100, 20)))
    if how != "code":  # there the error itself holds what holds them
        assert left_alive() == []


def test_what_cannot_be_handed_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where processes do not begin as copies: on macOS and Windows."""
    monkeypatch.setattr(torch.multiprocessing, "Process", multiprocessing.get_context("spawn").Process)
    with pytest.raises(InvalidInput, match=r"cannot be read by worker processes .* workers=0"):
        list(Reader(workers=1).ahead(lambda plan: plan.rows, in_order(100, 20)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": -1}, "workers must be a whole number, at least 0, got -1"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"memory": -1}, "memory must be"),
        ({"cache": "ram"}, "cache must be auto, memory, disk, none or a folder that exists, got 'ram'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Reader(**settings)


def test_a_folder_is_a_cache(tmp_path: Path) -> None:
    rows, note = Reader(cache=str(tmp_path)).room((3, 2), torch.float32)
    assert rows is not None
    assert str(tmp_path) in note
