from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from expunge.store.atomic import partial_path, remove_abandoned, write_atomically


def test_write_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for content in (b"one", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_interrupted_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "file", b"old")

    def full(_: int) -> None:
        # What a killed process would leave at this point: the old file, untouched.
        assert (tmp_path / "file").read_bytes() == b"old"
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_what_ended_processes_left_is_removed(tmp_path: Path) -> None:
    ended = multiprocessing.get_context("spawn").Process(target=int)
    ended.start()
    ended.join()
    mine = partial_path(tmp_path / "a.csv")
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    elsewhere = mine.with_name(f".a.csv.partial-{'0' * 8}-{ended.pid}-{'0' * 8}")
    other = theirs.with_name(theirs.name.replace("a.csv", "b"))
    for path in (mine, theirs, elsewhere):
        path.write_bytes(b"half")
    other.mkdir()
    remove_abandoned(tmp_path, "b")
    assert sorted(tmp_path.iterdir()) == sorted([mine, theirs, elsewhere])
    write_atomically(tmp_path / "c.csv", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([mine, elsewhere, tmp_path / "c.csv"])


def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no file, but a folder, pipe or device"):
        write_atomically(tmp_path / "pipe", b"")
