"""A PostgreSQL server for the length of a test, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expunge.errors import ExpungeError

_INSTALLED = "/usr/lib/postgresql"  # where Debian and Ubuntu put the server, off the path


class NoServer(ExpungeError):
    """The server's programs are not installed, or may not be started by this user."""


class Server:
    """A server that can be stopped and started.

    Args:
        folder: of its data and its socket.
        programs: folder of ``initdb`` and ``pg_ctl``.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._data = folder / "data"
        # The server refuses to run as root.
        self._user = "postgres" if os.name == "posix" and os.geteuid() == 0 else None
        if self._user:
            try:
                shutil.chown(folder, self._user)
            except LookupError as error:
                raise NoServer("PostgreSQL does not run as root, and there is no user postgres") from error
        self._run("initdb", "-D", self._data, "-U", "expunge", "-A", "trust", "--no-sync")
        self.url = f"postgresql+psycopg://expunge@/postgres?host={folder}"

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        # Through a socket in its folder alone: no port is taken. What a test stores need not reach the disk.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-l", self._folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it at once; connections are cut."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        # To a file: the server inherits it and keeps it open, so a pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd=self._folder, user=self._user, stdout=output, stderr=output, check=False
            )
            output.seek(0)
            if done.returncode:
                raise NoServer(f"{' '.join(command)} failed: {output.read().decode(errors='replace')}")


@contextmanager
def temporary_server() -> Iterator[Server]:
    """Start a server with an empty database ``server.url``; afterwards nothing of it is left.

    Raises:
        NoServer: its programs are not found, or do not work for this user.
    """
    found = [*sorted(Path(_INSTALLED).glob("*/bin/initdb"), reverse=True), *_on_path()]
    if not found:
        raise NoServer(f"PostgreSQL is not installed: no initdb on the path or in {_INSTALLED}/*/bin")
    # A short path: that of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="expunge-pg-"))
    try:
        server = Server(folder, found[0].parent)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _on_path() -> list[Path]:
    program = shutil.which("initdb")
    return [Path(program)] if program else []
