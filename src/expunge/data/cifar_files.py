"""The files of CIFAR-10 and CIFAR-100: original Python batches (never unpickled) or a compact coding of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expunge.data.inert_pickle import read_inert
from expunge.data.location import data_folder
from expunge.data.npz import read_arrays
from expunge.errors import DataError

_AGAIN = "get the file again"

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Part = tuple[Images, list[Labels]]
"""What a file holds: images (N, 3, H, W) and, for every kind of label, one an image (N,)."""


def read_files(
    root: Path | None,
    original: tuple[str, Sequence[str]],
    compact: tuple[str, Sequence[str]],
    kinds: Sequence[str],
) -> list[Part]:
    """Read every file of the original form, or of the compact form where that is not there.

    Args:
        root: folder of data sets, see :func:`expunge.data.location.data_folder`.
        original: folder below ``root`` and names of the original files.
        compact: the same of the compact form; its names lack the ending ``.npz``.
        kinds: names of the labels in a file, such as "labels" or "fine_labels".

    Returns:
        The images of each file and their labels, of every kind.

    Raises:
        DataError: files are missing, truncated or of another shape.
    """
    try:
        folder = data_folder(root, *original)
    except DataError as without_original:
        names = [f"{name}.npz" for name in compact[1]]
        try:
            folder = data_folder(root, compact[0], names)
        except DataError as without_compact:
            raise DataError(f"{without_original}; or, in the compact form, {without_compact}") from None
        return [_read_compact(folder / name, kinds) for name in names]
    return [_read_original(folder / name, kinds) for name in original[1]]


def decode(delta: Images) -> Images:
    """Undo the compact coding: uint8 (3, N, H, W) of differences -> uint8 (N, 3, H, W) of RGB pixels.

    The planes are R - G, G and B - G, each stored as its first difference down the rows and then along
    the columns; all arithmetic is modulo 256, so nothing is lost.
    """
    red, green, blue = delta.cumsum(axis=2, dtype=np.uint8).cumsum(axis=3, dtype=np.uint8)
    return np.stack([red + green, green, blue + green], axis=1)


def _read_original(path: Path, kinds: Sequence[str]) -> Part:
    batch = read_inert(path)
    pixels = batch.get(b"data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        found = pixels.shape if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{path}: expected 'data' to be an array of shape (N, 3072), found {found}; {_AGAIN}")
    columns = []
    for kind in kinds:
        labels = batch.get(kind.encode())
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise DataError(
                f"{path}: expected {kind!r} to be a list of ints, found another structure; {_AGAIN}"
            )
        columns.append(np.array(labels, dtype=np.int64))
    # a copy: the array is a view of the file's bytes, which torch must not be able to write to
    return _checked(path, pixels.reshape(-1, 3, 32, 32).copy(), columns, kinds)


def _read_compact(path: Path, kinds: Sequence[str]) -> Part:
    arrays = read_arrays(path, ("delta", *kinds))
    delta = arrays["delta"]
    if delta.dtype != np.uint8 or delta.ndim != 4 or (delta.shape[0], *delta.shape[2:]) != (3, 32, 32):
        raise DataError(
            f"{path}: expected 'delta' to be uint8 (3, N, 32, 32), found {delta.dtype} {delta.shape}; {_AGAIN}"
        )
    for kind in kinds:
        labels = arrays[kind]
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise DataError(
                f"{path}: expected {kind!r} to be integers (N,), found {labels.dtype} {labels.shape}; {_AGAIN}"
            )
    return _checked(path, decode(delta), [arrays[kind].astype(np.int64) for kind in kinds], kinds)


def _checked(path: Path, images: Images, columns: list[Labels], kinds: Sequence[str]) -> Part:
    if any(len(labels) != len(images) for labels in columns):
        counts = [f"{len(images)} images"]
        for labels, kind in zip(columns, kinds, strict=True):
            counts.append(f"{len(labels)} {kind.removesuffix('labels').rstrip('_')}".rstrip())
        raise DataError(
            f"{path}: expected one label of each kind an image, found {', '.join(counts[:-1])} and {counts[-1]} "
            f"labels; {_AGAIN}"
        )
    return images, columns
