"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import uuid
from functools import cache
from pathlib import Path

from expunge.errors import StoreError

_PARTIAL = re.compile(r"[.].*[.]partial-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}")


def partial_path(path: Path) -> Path:
    """Return a hidden name beside ``path`` for what becomes it; it says which process of which machine writes there."""
    return path.with_name(f".{path.name[:150]}.partial-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove what ended processes of this machine left half written in ``folder``, of ``name`` alone if it is given."""
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            found = _PARTIAL.fullmatch(entry.name)
            if found is None or found[1] != _machine() or process_runs(int(found[2])):
                continue
            if entry.name.startswith(f".{name[:150]}.partial-" if name else "."):
                with contextlib.suppress(OSError):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@cache
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def process_runs(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives and is another user's
        pass
    return True


_once = cache(remove_abandoned)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk, then move it into place.

    A reader, or a process killed at any moment, finds the old file or the new one, never a part.

    Raises:
        OSError: the folder cannot be made or written, or ``path`` is no regular file; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file, but a folder, pipe or device, which is not replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    _once(path.parent)
    aside = partial_path(path)
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)  # noqa: PTH105  Path.replace documents no atomicity
    finally:
        aside.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        # The new name itself must survive a power cut; other systems offer no such call.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_output(
    path: str | Path, content: bytes, what: str = "", remedy: str = "choose a path that can be written"
) -> Path:
    """Write a file that a user asked for, and return its path; ``what`` it is, for the message.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        write_atomically(Path(path), content)
    except OSError as error:
        raise StoreError(f"{what} {path} cannot be written: {error}; {remedy}".lstrip()) from error
    return Path(path)
