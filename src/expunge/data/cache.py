"""Where rows stay once they are read: in memory, or in a temporary file that is mapped into it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from expunge.errors import InvalidInput

CACHES = ("auto", "memory", "disk", "none")

_UNLIMITED = 2**60
"""What a limit above this means."""


class Room(NamedTuple):
    """Where rows are to stay: an empty tensor (N, ...), or nowhere; and what to tell the user, if anything."""

    rows: Tensor | None
    note: str = ""


def room_for(shape: tuple[int, ...], dtype: torch.dtype, cache: str, memory: int | None) -> Room:
    """Return an empty place for rows of ``shape`` (N, ...); the rest is as in :class:`expunge.data.reader.Reader`.

    A file has no name any more when this returns, so that it is gone with the process, however that ends.
    """
    size = math.prod(shape) * dtype.itemsize
    budget = free_memory() // 2 if memory is None else memory
    if cache == "none" or size == 0:
        return Room(None)
    if cache == "memory" or (cache == "auto" and size <= budget):
        return Room(torch.empty(shape, dtype=dtype))
    folder = _temporary_folder() if cache in CACHES else Path(cache).expanduser()
    said = f"{size / 2**30:.2f} GiB of rows"
    try:
        # Half of it: what else is at work needs room too.
        if cache == "auto" and size > shutil.disk_usage(folder).free // 2:
            raise OSError(f"less than twice that is free in {folder}")
        return Room(_mapped(folder, shape, dtype, size), f"{said} are kept in a temporary file in {folder}")
    except OSError as error:
        if cache != "auto":
            raise InvalidInput(
                f"{said} find no room in {folder} ({error}); name another folder with cache (--cache FOLDER), or "
                "take none"
            ) from error
        return Room(
            None,
            f"{said} fit neither in memory ({budget / 2**30:.2f} GiB for them) nor on disk ({error}): each row is "
            "read again whenever it is needed; --cache FOLDER names another disk",
        )


def _mapped(folder: Path, shape: tuple[int, ...], dtype: torch.dtype, size: int) -> Tensor:
    handle, name = tempfile.mkstemp(prefix="expunge-rows-", dir=folder)
    try:
        if hasattr(os, "posix_fallocate"):
            # A disk that is full while rows are written would end the process without a word.
            os.posix_fallocate(handle, 0, size)
        else:
            os.truncate(handle, size)
        return torch.from_file(name, shared=True, size=math.prod(shape), dtype=dtype).view(shape)
    finally:
        os.close(handle)
        with contextlib.suppress(PermissionError):  # Windows keeps a mapped file
            Path(name).unlink()


def _temporary_folder() -> Path:
    """Where large temporary files go: /tmp is memory on many systems, /var/tmp is not."""
    large = Path("/var/tmp")
    given = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return large if not given and os.access(large, os.W_OK) else Path(tempfile.gettempdir())


def free_memory() -> int:
    """Return the bytes that this process may still take: what is free on the machine, within its limits."""
    return max(0, min(_limits(), default=_UNLIMITED))


def _limits() -> Iterator[int]:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # of Unix alone

        fields = Path("/proc/self/statm").read_text().split()
        used = int(fields[5]) * resource.getpagesize()
        soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if 0 <= soft < _UNLIMITED:
            yield soft - used
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        yield int(lines["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            most = int(Path(limit).read_text())
            if most < _UNLIMITED:
                yield most - int(Path(usage).read_text())
