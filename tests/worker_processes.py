"""Processes that others started: those of a sweep, and whether one lives."""

from __future__ import annotations

import os
from pathlib import Path


def workers_of(coordinator: int) -> list[int]:
    """Process numbers of the workers: children of the servers that ``coordinator`` started for them."""
    parents = {process: parent for process, parent in _living() if b"forkserver" in _command(process)}
    servers = {process for process, parent in parents.items() if parent == coordinator}
    return [process for process, parent in parents.items() if parent in servers]


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not looked at yet does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return (
            Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            not in "ZX"
        )
    except OSError:  # it has ended meanwhile, or the system has no /proc
        return not Path("/proc/self/stat").exists()


def _living() -> list[tuple[int, int]]:
    """Numbers of all processes that run and of their parents."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if state not in "ZX":
                found.append((int(entry.name), int(parent)))
    return found


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
