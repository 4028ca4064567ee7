"""Files that are either whole or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from expunge.errors import StoreError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk, then move it into place.

    A reader, or a process killed at any moment, finds the old file or the new one, never a part.

    Raises:
        OSError: the folder cannot be made or written, or ``path`` is no regular file; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file, but a folder, pipe or device, which is not replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
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


def write_output(path: str | Path, content: bytes, what: str) -> Path:
    """Write a file that a user asked for, and return its path; ``what`` it is, for the message.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        write_atomically(Path(path), content)
    except OSError as error:
        raise StoreError(
            f"{what} {path} cannot be written: {error}; choose a path that can be written"
        ) from error
    return Path(path)
