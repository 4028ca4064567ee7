"""Pickled image batches read as plain data: no name in the file is imported or called.

The original CIFAR batches are Python 2 pickles. Three names occur in them, those of which a NumPy array consists;
classes of this module stand in for them, and any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError


def read_inert(path: Path) -> dict[bytes, object]:
    """Read a Python 2 pickle of one dictionary: ints, bytes, None, lists, tuples, dictionaries and uint8 arrays.

    Raises:
        DataError: the file cannot be read, is truncated, or asks for anything but those.
    """
    try:
        content = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("the file does not hold one dictionary")
    except OSError as error:
        raise DataError(f"{path}: expected a readable batch, but {error.strerror}; check the path") from error
    except Exception as error:  # a damaged file may fail in any way
        raise DataError(
            f"{path}: expected a batch of images pickled as plain data, but {error}; nothing in the file was executed; "
            "get the original file again"
        ) from error
    return {name: entry.array if isinstance(entry, _Array) else entry for name, entry in content.items()}


class _Dtype:
    """Stands in for ``numpy.dtype``, of unsigned bytes only."""

    def __init__(self, *given: object) -> None:
        if given != (b"u1", 0, 1):
            raise ValueError(f"it holds numbers of the type {given}")

    def __setstate__(self, state: object) -> None:
        if state != (3, b"|", None, None, None, -1, -1, 0):
            raise ValueError(f"it holds numbers of the form {state}")


class _Array:
    """Stands in for what ``numpy.core.multiarray._reconstruct`` makes."""

    def __init__(self, *given: object) -> None:
        if given != (_NDARRAY, (0,), b"b"):
            raise ValueError(f"it makes an array of {given}")
        self.array: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple() as shape, _Dtype(), False, bytes() as content):
                if math.prod(shape) != len(content) or min(shape, default=0) < 0:
                    raise ValueError(f"an array of shape {shape} comes with {len(content)} bytes")
                self.array = np.frombuffer(content, dtype=np.uint8).reshape(shape)
            case _:
                raise ValueError("it fills an array with something else than bytes")


_NDARRAY = object()


class _Reader(pickle.Unpickler):
    names: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in; any other name is refused unread."""
        if (module, name) not in self.names:
            raise ValueError(f"it asks for {module}.{name}")
        return self.names[module, name]
