"""Weights in safetensors files, one per key; a file is whole or not there."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from expunge.errors import InvalidInput, StoreError
from expunge.store.atomic import write_atomically


class CannotWrite(StoreError):
    """Weights cannot be stored: a full disk, or a folder that may not be written; work is to stop."""


class WeightStore:
    """Tensors by key, in ``<folder>/<key>.safetensors``.

    A key is the hash of what its tensors were made from, so the same key means the same content and no
    file is ever rewritten.

    Args:
        folder: where the files are; made when the first one is saved. A path, or an fsspec URL, which is told from a
            path by its ``://`` (``s3://bucket/sweep``), for files that several machines share; its package finds
            the credentials itself (environment, configuration).

    Attributes:
        folder: opens the same place again, also in another process.

    Raises:
        StoreError: a URL that fsspec does not know, or whose package is not installed.
        InvalidInput: by every method, a key that is not 32 lower-case hexadecimal digits.
    """

    def __init__(self, folder: str | Path) -> None:
        self._system: Any = LocalFileSystem()
        if isinstance(folder, Path) or "://" not in folder:
            self._root = str(Path(folder).expanduser().absolute())
        else:
            try:
                # Others write there too: a remembered listing would hide their files.
                self._system, self._root = url_to_fs(folder, use_listings_cache=False)
            except (ImportError, ValueError, OSError) as error:
                raise StoreError(
                    f"the place {folder!r} for weights cannot be used: {error}; install the package that fsspec "
                    "names for it, or give a local folder"
                ) from error
            self._root = self._root.rstrip("/")
        local = isinstance(self._system, LocalFileSystem)
        self.folder: Path | str = Path(self._root) if local else str(folder).rstrip("/")

    def path(self, key: str) -> Path | str:
        """Where the tensors of ``key`` are, or would be."""
        name = _name(key)
        return self.folder / name if isinstance(self.folder, Path) else f"{self.folder}/{name}"

    def has(self, key: str) -> bool:
        """Whether there is a file for ``key``; raises StoreError if the place is elsewhere and does not answer."""
        try:
            return bool(self._do("isfile", self._at(key)))
        except OSError as error:
            raise StoreError(
                f"weights {self.path(key)} cannot be looked up: {error}; check that the place can be reached"
            ) from error

    def save(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Save ``tensors`` of any dtype and memory layout; does nothing if ``key`` is there already.

        Raises:
            InvalidInput: something that is not a dense tensor, or has a type without a safetensors form.
            CannotWrite: the file cannot be written.
        """
        for part, tensor in tensors.items():
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
                form = f"of type {type(tensor).__name__}"
                if isinstance(tensor, Tensor):
                    form = f"a tensor of layout {tensor.layout} and dtype {tensor.dtype}"
                raise InvalidInput(f"{part!r} is {form}, expected a dense tensor; convert it or leave it out")
        if self.has(key):
            return
        # Cloned, because the format holds neither strides nor tensors that share memory.
        plain = {
            part: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for part, tensor in tensors.items()
        }
        try:
            content = save(plain, dict(metadata))
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"the tensors of {key} have no safetensors form: {error}; convert them to a common dtype"
            ) from error
        try:
            self._write(key, content)
        except OSError as error:
            raise CannotWrite(
                f"weights {self.path(key)} cannot be written: {error}; check the folder's permissions and free "
                "space, then give the same command again: what is finished is kept"
            ) from error

    def load(self, key: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return the tensors of ``key`` on ``device``.

        Raises:
            StoreError: there is no file for ``key``, or it is truncated or unreadable.
        """
        try:
            # Read whole rather than mapped: a file that changes later cannot reach tensors in use.
            tensors = load(self._do("cat_file", self._at(key)))
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise self._unreadable(key, error) from error
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def metadata(self, key: str) -> dict[str, str]:
        """Return what was saved beside the tensors of ``key``, reading the header only; raises like :meth:`load`."""
        file = self._at(key)
        try:
            # The format: 8 bytes that hold the header's length, the header in JSON, the tensors' bytes.
            length = int.from_bytes(self._do("cat_file", file, start=0, end=8), "little")
            size = self._do("size", file)
            if not 0 < length <= size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(self._do("cat_file", file, start=8, end=8 + length))
            metadata = header.pop("__metadata__", {})
            stop = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            if 8 + length + stop != size:
                raise ValueError(f"{size} bytes instead of {8 + length + stop}")
            return {str(label): str(text) for label, text in metadata.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._unreadable(key, error) from error

    def _at(self, key: str) -> str:
        return f"{self._root}/{_name(key)}"

    def _write(self, key: str, content: bytes) -> None:
        """Store a file that is whole or not there; where that fails nothing is left behind that can be helped."""
        if isinstance(self.folder, Path):
            write_atomically(Path(self._at(key)), content)  # fsspec does not flush what it writes to the disk
            return
        aside = f"{self._root}/.{_name(key)}.{uuid.uuid4().hex}.partial"
        try:
            self._do("makedirs", self._root, exist_ok=True)
            self._do("pipe_file", aside, content)
            self._do("mv", aside, self._at(key))  # which some places do by copying
        except OSError:
            with suppress(OSError):  # it was never made, or the place is gone
                self._do("rm_file", aside)
            raise

    def _do(self, call: str, *given: Any, **named: Any) -> Any:
        """Call the file system; whatever a place's package raises becomes an OSError."""
        try:
            return getattr(self._system, call)(*given, **named)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _unreadable(self, key: str, error: Exception) -> StoreError:
        target = self.path(key)
        if isinstance(error, FileNotFoundError):
            return StoreError(f"there are no weights {target}; save them first, or run their cell again")
        return StoreError(
            f"weights {target} are truncated or unreadable ({error}); "
            "delete that file so that it is made again"
        )


def _name(key: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", key):
        raise InvalidInput(
            f"weights key {key!r} is not 32 lower-case hexadecimal digits; make it with fingerprint(...)"
        )
    return f"{key}.safetensors"
