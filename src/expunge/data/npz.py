"""Images and labels of one's own, from a NumPy ``.npz`` file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.data.images import ImageData
from expunge.data.location import check_memory, check_regular
from expunge.errors import DataError

_Array = npt.NDArray[Any]


def load_npz(path: Path) -> ImageData:
    """Read images and labels from a ``.npz`` file as ``np.savez`` writes it.

    The file holds ``images`` and ``labels``; optionally ``test_images`` and ``test_labels`` (both or
    neither), and ``classes``, a 1-D array of strings.

    - Images: uint8, or float in [0, 1], which is rounded to 0..255; shape (N, H, W), (N, H, W, C) or
      (N, C, H, W) with C of 1 or 3. Where both 4-D readings fit, channels are taken to be last.
    - Labels: integers (N,), classes numbered from 0. Without ``classes`` there are as many as the
      largest label says, named by their numbers.
    - Without a test part, 20 % of every class (rounded) is held out as one: the same images each time
      (drawn with seed 0).

    Mean and standard deviation are those of the training images; there is no augmentation.

    Raises:
        DataError: the file is missing, truncated or no ``.npz``; an array is missing, of another type or
            shape, or holds NaN, inf, pixels outside [0, 1] or negative labels; the counts differ.
    """
    arrays = read_arrays(path, ("images", "labels"), ("test_images", "test_labels", "classes"))
    images, labels = _part(path, arrays, "")
    tests = [name for name in ("test_images", "test_labels") if name in arrays]
    if len(tests) == 1:
        raise DataError(
            f"{path}: found {tests[0]!r} alone; expected both 'test_images' and 'test_labels', or neither"
        )
    if tests:
        test_images, test_labels = _part(path, arrays, "test_")
    else:
        held = _held_out(path, labels)
        test_images, test_labels = images[held], labels[held]
        images, labels = images[~held], labels[~held]
    return ImageData(
        name=path.name,
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=_classes(path, arrays.get("classes"), torch.cat([labels, test_labels])),
    )


def read_arrays(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, _Array]:
    """Read named arrays of a ``.npz`` file, the ``optional`` ones where they are there; pickled content stays unread.

    Raises:
        DataError: the file is missing, truncated or no ``.npz``, lacks a required name, or holds an array of objects.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise DataError(f"{path}: found a single array, expected a .npz file; write it with np.savez")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in required if name not in members]
            if missing:
                raise DataError(
                    f"{path}: missing {', '.join(missing)}; expected {', '.join(required)}"
                    f"{' and optionally ' + ', '.join(optional[:8]) if optional else ''}, found "
                    f"{', '.join(list(members)[:8]) or 'nothing'}; save the arrays under the expected names"
                )
            return {
                name: _member(path, archive, members[name])
                for name in (*required, *optional)
                if name in members
            }
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected a .npz file; check the path") from error
    # RuntimeError is what zipfile raises for members that are encrypted or packed in an unknown way.
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: expected a .npz file, found one that is truncated, damaged or of another kind "
            f"({error}); write it again with np.savez"
        ) from error


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays of a ``.npz`` file; refuse it as :func:`read_arrays` does."""
    read_arrays(path, ())
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_array(path: Path) -> _Array:
    """Read a ``.npy`` file; pickled content stays unread.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no ``.npy`` file, truncated, holds objects, or claims more than there is.
    """
    with path.open("rb") as file:
        return _array(file, path.stat().st_size)


def _array(file: IO[bytes], size: int, packed: int | None = None) -> _Array:
    """Return the array in ``file``, of ``size`` bytes; what its header claims is checked before it is asked for."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    # It is parsed as Python, and fails as that does.
    except Exception as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    wanted = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and wanted > size - file.tell():
        raise ValueError(
            f"it is truncated: {wanted:,} bytes of data are expected, {size - file.tell():,} are there"
        )
    check_memory(wanted, packed)
    file.seek(0)
    array: _Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Array:
    with archive.open(info) as file:
        try:
            return _array(file, info.file_size, info.compress_size)
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise DataError(
                f"{path}: {info.filename.removesuffix('.npy')!r} is an array of objects, expected one array of numbers "
                "or strings; images must have one size: resize them and join them with np.stack (object arrays are "
                "never unpickled)"
            ) from error


def _part(path: Path, arrays: dict[str, _Array], prefix: str) -> tuple[Tensor, Tensor]:
    images = as_images(f"{path}: {prefix}images", arrays[f"{prefix}images"])
    labels = _labels(f"{path}: {prefix}labels", arrays[f"{prefix}labels"])
    if len(images) != len(labels):
        raise DataError(
            f"{path}: {len(images)} {prefix}images but {len(labels)} {prefix}labels; expected one label an "
            "image; save both arrays again"
        )
    return images, labels


def as_images(what: str, array: _Array) -> Tensor:
    """Return uint8 (N, C, H, W) of images uint8 or float in [0, 1], (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.size == 0:
        raise DataError(
            f"{what} have shape {array.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) with C of "
            "1 or 3 and nothing empty; reshape them"
        )
    if array.dtype.kind == "f":
        array = _quantised(what, array)
    if array.dtype != np.uint8:
        raise DataError(
            f"{what} have dtype {array.dtype}; expected uint8 in 0..255 or float in [0, 1]; convert them, "
            "for example with images.astype(np.uint8)"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def _quantised(what: str, array: _Array) -> _Array:
    finite = np.isfinite(array).all(axis=(1, 2, 3))
    if not finite.all():
        raise DataError(
            f"{what}: image {int(finite.argmin())} contains NaN or inf ({int((~finite).sum())} images do); "
            "expected numbers in [0, 1]; remove or repair them"
        )
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise DataError(
            f"{what} are {array.dtype} in [{low:g}, {high:g}]; expected [0, 1]; scale them, for example by "
            "1/255, or save them as uint8"
        )
    quantised: _Array = np.rint(array * 255).astype(np.uint8)
    return quantised


def _labels(what: str, array: _Array) -> Tensor:
    """Return int64 (N,)."""
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"{what} are {array.dtype} {array.shape}; expected integers of shape (N,); save class numbers"
        )
    labels = torch.from_numpy(array.astype(np.int64))
    negative = (labels < 0).nonzero()
    if len(negative):
        position = int(negative[0])
        raise DataError(
            f"{what}: label {int(labels[position])} at position {position} is negative ({len(negative)} "
            "are); expected classes numbered from 0; renumber them or remove those images"
        )
    return labels


def _held_out(path: Path, labels: Tensor) -> Tensor:
    """Mask (N,) of a fifth of every class, rounded; the same for the same labels."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        members = order[labels[order] == label]
        held[members[: round(0.2 * len(members))]] = True
    if not held.any():
        raise DataError(
            f"{path}: found no test part and no class with enough images to hold out 20 % (at least 3 are "
            "expected); add 'test_images' and 'test_labels'"
        )
    return held


def _classes(path: Path, array: _Array | None, labels: Tensor) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    if array is not None:
        if array.dtype.kind != "U" or array.ndim != 1:
            raise DataError(
                f"{path}: classes are {array.dtype} {array.shape}; expected a 1-D array of strings; save "
                "np.array(names, dtype=str)"
            )
        if count > len(array):
            raise DataError(
                f"{path}: the largest label is {count - 1}, but 'classes' has {len(array)} names; expected one "
                "for each of 0, 1, 2, ...; correct the labels or add names"
            )
        return tuple(array.tolist())
    # Identifiers saved as labels would otherwise ask for a classifier with as many outputs.
    if count > len(labels):
        raise DataError(
            f"{path}: the largest label is {count - 1}, but there are only {len(labels)} images; expected "
            "classes numbered 0, 1, 2, ...; renumber them, or save 'classes'"
        )
    return tuple(str(label) for label in range(count))
