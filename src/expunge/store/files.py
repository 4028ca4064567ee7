"""Where weight files are: a local folder, or any place that fsspec reaches."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from expunge.errors import StoreError
from expunge.store.atomic import write_atomically


class Files:
    """Files by name in a folder of this machine, which is made with the first file; each is whole or not there.

    Reading and writing raise OSError, FileNotFoundError where there is no such file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Path | str = folder.expanduser().absolute()
        """Opens the same place again, also in another process."""

    def where(self, name: str) -> Path | str:
        """Full path of ``name``."""
        return Path(self.folder) / name

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return Path(self.where(name)).is_file()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return its bytes from ``start`` to ``stop``."""
        with Path(self.where(name)).open("rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else stop - start)

    def size(self, name: str) -> int:
        """Its length in bytes."""
        return Path(self.where(name)).stat().st_size

    def write(self, name: str, content: bytes) -> None:
        """Store it; where that fails nothing is left behind that can be helped."""
        write_atomically(Path(self.where(name)), content)


class RemoteFiles(Files):
    """Files at an fsspec URL, with credentials as its package finds them (environment, configuration)."""

    def __init__(self, url: str, system: Any, root: str) -> None:
        self.folder = url.rstrip("/")
        self._system, self._root = system, root.rstrip("/")

    def where(self, name: str) -> str:
        """Full URL of ``name``."""
        return f"{self.folder}/{name}"

    def has(self, name: str) -> bool:
        """See :class:`Files`; raises StoreError if the place does not answer."""
        try:
            return bool(self._do(lambda: self._system.isfile(self._path(name))))
        except OSError as error:
            raise StoreError(
                f"weights {self.where(name)} cannot be looked up: {error}; check that the place can be reached"
            ) from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """See :class:`Files`."""
        return bytes(self._do(lambda: self._system.cat_file(self._path(name), start=start, end=stop)))

    def size(self, name: str) -> int:
        """See :class:`Files`."""
        return int(self._do(lambda: self._system.size(self._path(name))))

    def write(self, name: str, content: bytes) -> None:
        """See :class:`Files`; written aside, then moved, which some places do by copying."""
        aside = self._path(f".{name}.{uuid.uuid4().hex}.partial")

        def put() -> None:
            self._system.makedirs(posixpath.dirname(aside), exist_ok=True)
            self._system.pipe_file(aside, content)
            self._system.mv(aside, self._path(name))

        try:
            self._do(put)
        except OSError:
            with suppress(OSError):  # it was never made, or the place is gone
                self._do(lambda: self._system.rm_file(aside))
            raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @staticmethod
    def _do(call: Callable[[], Any]) -> Any:
        """Carry out ``call``; whatever a place's package raises becomes an OSError."""
        try:
            return call()
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def open_files(folder: str | Path) -> Files:
    """Return the files at a local path or an fsspec URL, which is told from a path by its ``://``.

    Raises:
        StoreError: a URL that fsspec does not know, or whose package is not installed.
    """
    if isinstance(folder, Path) or "://" not in folder:
        return Files(Path(folder))

    # Only who stores elsewhere waits for the import.
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        # Others write there too: a remembered listing would hide their files.
        system, root = url_to_fs(folder, use_listings_cache=False)
    except (ImportError, ValueError, OSError) as error:
        raise StoreError(
            f"the place {folder!r} for weights cannot be used: {error}; install the package that fsspec "
            "names for it, or give a local folder"
        ) from error
    if isinstance(system, LocalFileSystem):
        return Files(Path(root))  # fsspec does not flush what it writes to the disk
    return RemoteFiles(folder, system, str(root))
