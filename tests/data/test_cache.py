from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from expunge.data import cache as module
from expunge.data.cache import free_memory, room_for
from expunge.errors import InvalidInput

SHAPE = (1000, 3, 4, 4)
SIZE = 48_000


def mapped_file(rows: torch.Tensor) -> str:
    """What the kernel says that the memory of a tensor is mapped from."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= rows.data_ptr() < end:
            return line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
    raise AssertionError("the tensor lies nowhere")


@pytest.mark.parametrize(("memory", "on_disk"), [(SIZE, False), (SIZE - 1, True), (0, True)])
def test_the_budget_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, on_disk: bool
) -> None:
    monkeypatch.setattr(module, "_temporary_folder", lambda: tmp_path)
    rows, note = room_for(SHAPE, torch.uint8, "auto", memory)
    assert rows is not None
    assert tuple(rows.shape) == SHAPE
    assert ("expunge-rows-" in mapped_file(rows)) is on_disk
    assert ("kept in a temporary file" in note) is on_disk


def test_the_file_has_no_name_from_the_beginning(tmp_path: Path) -> None:
    """Nothing is left to be removed, however the process ends."""
    rows, _ = room_for(SHAPE, torch.float32, str(tmp_path), None)
    assert rows is not None
    assert list(tmp_path.iterdir()) == []
    assert mapped_file(rows).startswith(str(tmp_path))
    rows[7] = 1.5
    rows[999] = 2.5
    assert rows.sum() == 48 * 4


def test_what_processes_write_is_seen_by_all(tmp_path: Path) -> None:
    rows, _ = room_for((4, 2), torch.int64, str(tmp_path), None)
    assert rows is not None
    child = os.fork()
    if child == 0:
        rows[2] = 9
        os._exit(0)
    os.waitpid(child, 0)
    assert rows[2].tolist() == [9, 9]


def test_without_room_nothing_is_kept_or_who_asked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_temporary_folder", lambda: tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * SIZE - 1))
    rows, note = room_for(SHAPE, torch.uint8, "auto", 10)
    assert rows is None
    assert "fit neither in memory" in note
    assert "--cache FOLDER" in note

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InvalidInput, match=r"No space left on device.*--cache FOLDER"):
        room_for(SHAPE, torch.uint8, "disk", None)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_to_be_kept_has_no_room() -> None:
    assert room_for(SHAPE, torch.uint8, "none", None) == (None, "")
    rows, _ = room_for(SHAPE, torch.uint8, "memory", 0)
    assert rows is not None
    assert mapped_file(rows) in ("", "[heap]")


def test_free_memory_is_below_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2**40, limits[1]))
    try:
        assert free_memory() < 2**40
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
