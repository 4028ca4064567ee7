"""Where the files of a data set lie: the folder that was given, or the one named by EXPUNGE_DATA."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from expunge.errors import DataError

VARIABLE = "EXPUNGE_DATA"


def data_folder(
    root: Path | None, name: str, files: Sequence[str], *, suffixes: Sequence[str] = ("",)
) -> Path:
    """Return the folder that has all ``files``: ``root/name``, else ``root`` itself.

    Without ``root`` the environment variable ``EXPUNGE_DATA`` says it; ``suffixes`` may follow a file's name.

    Raises:
        DataError: no folder is known, or files are missing in both places.
    """
    remedy = (
        f"set the environment variable {VARIABLE} or pass --data-root to say where the folder {name!r} is"
    )
    if root is None:
        if not os.environ.get(VARIABLE):
            raise DataError(
                f"{name} is read from files ({', '.join(files)}), but no folder was given; {remedy}"
            )
        root = Path(os.environ[VARIABLE])
    folders = (root / name, root)
    missing = {
        folder: [file for file in files if find_file(folder, file, suffixes) is None] for folder in folders
    }
    fewest = min(folders, key=lambda folder: len(missing[folder]))
    if not missing[fewest]:
        return fewest
    raise DataError(
        f"{name}: missing {', '.join(missing[fewest])} (looked in {folders[0]} and {folders[1]}); {remedy}"
    )


def find_file(folder: Path, file: str, suffixes: Sequence[str]) -> Path | None:
    """Return the first of ``folder/file`` with each suffix appended that is a file, or None."""
    paths = (folder / f"{file}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def check_regular(path: Path) -> None:
    """Raise :class:`DataError` for a pipe, socket or device: reading one may never end."""
    try:
        special = path.exists() and not (path.is_file() or path.is_dir())
    except OSError as error:  # such as a name that is too long
        raise DataError(f"{str(path)[:200]}: {error.strerror}; check the path") from error
    if special:
        raise DataError(f"{path} is a pipe, socket or device, expected a file; save what it gives to a file")


def check_memory(count: int, packed: int | None = None) -> None:
    """Raise :class:`ValueError` before ``count`` bytes are asked for that cannot be meant.

    More than this machine has, or more than 1 GiB out of a hundredth of that, ``packed``.
    """
    # Windows has no such call, and is not asked.
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
    if count > there:
        raise ValueError(f"it claims {count:,} bytes, and this machine has {there:,}")
    if packed is not None and count > max(2**30, 100 * packed):
        raise ValueError(f"{packed:,} bytes would unpack to {count:,}")
