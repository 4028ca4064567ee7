"""A process that does part of a sweep, named so that others can tell whether it still lives."""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from expunge.store.atomic import process_runs


@dataclass(frozen=True)
class Owner:
    """One run of a sweep.

    Args:
        host: its name.
        system: tells machines and containers of one name apart, and a machine before and after a restart.
        pid: process number there.
        started: when the process started, as the system counts; empty where it does not tell. A number is
            given to another process sooner or later.
        token: tells runs within one process apart.
    """

    host: str
    system: str
    pid: int
    started: str
    token: str

    @classmethod
    def this(cls) -> Owner:
        """Return a new owner in this process."""
        return cls(
            socket.gethostname(), _system(), os.getpid(), _started(os.getpid()) or "", uuid.uuid4().hex
        )

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Return what :meth:`text` wrote; None if it is of another form."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def text(self) -> str:
        """As one line for the database."""
        return json.dumps(asdict(self))

    def is_gone(self) -> bool:
        """Whether the process has certainly ended; never said of another machine's."""
        if (self.host, self.system) != (socket.gethostname(), _system()) or os.name != "posix":
            return False
        if not process_runs(self.pid):
            return True
        started = _started(self.pid)
        return started is not None and started != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _started(pid: int) -> str | None:
    """Start time of a process; None where the system has no /proc, empty if the process has ended."""
    if not Path("/proc/self/stat").exists():
        return None
    try:
        # The command, in brackets, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    # A dead process whose parent has not looked at it yet is still listed.
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _system() -> str:
    """Boot and process namespace, where the system tells: in containers of one host numbers repeat."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
