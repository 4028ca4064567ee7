"""CIFAR-10 from the original Python batches (never unpickled) or from a compact coding of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from expunge.data.images import Augmentation, ImageData
from expunge.data.inert_pickle import read_inert
from expunge.data.location import data_folder
from expunge.data.npz import read_arrays
from expunge.errors import DataError

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_AGAIN = "get the file again"

_Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def load_cifar10(root: Path | None = None) -> ImageData:
    """CIFAR-10: 60,000 photographs of ten classes, 32x32 RGB; 50,000 to train, 10,000 to test.

    Two forms are read, the first where both are there: the original files ``data_batch_1`` .. ``5`` and
    ``test_batch`` in ``root/cifar-10-batches-py``, or a compact form of them, ``data_batch_1.npz`` ..
    ``5`` and ``test_batch.npz`` in ``root/cifar10`` (see :func:`decode`). Either may lie in ``root``
    itself; ``root`` defaults to the environment variable ``EXPUNGE_DATA``. Nothing in a file is executed.
    ``mean`` and ``std`` are the customary ones of the training pixels.

    Raises:
        DataError: files are missing, truncated or of another shape.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    *train, test = _batches(root)
    return ImageData(
        name="cifar10",
        train_images=torch.from_numpy(np.concatenate([images for images, _ in train])),
        train_labels=torch.from_numpy(np.concatenate([labels for _, labels in train])),
        test_images=torch.from_numpy(test[0]),
        test_labels=torch.from_numpy(test[1]),
        classes=_CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        augmentation=Augmentation(pad=4, flip=True),
    )


def decode(delta: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Undo the compact coding: uint8 (3, N, H, W) of differences -> uint8 (N, 3, H, W) of RGB pixels.

    The planes are R - G, G and B - G, each stored as its first difference down the rows and then along
    the columns; all arithmetic is modulo 256, so nothing is lost.
    """
    red, green, blue = delta.cumsum(axis=2, dtype=np.uint8).cumsum(axis=3, dtype=np.uint8)
    return np.stack([red + green, green, blue + green], axis=1)


def _batches(root: Path | None) -> list[_Batch]:
    """The five training batches and the test batch, from whichever form is there."""
    names = (*_TRAIN, _TEST)
    try:
        folder = data_folder(root, "cifar-10-batches-py", names)
    except DataError as original:
        try:
            folder = data_folder(root, "cifar10", [f"{name}.npz" for name in names])
        except DataError as compact:
            raise DataError(f"{original}; or, in the compact form, {compact}") from None
        return [_read_compact(folder / f"{name}.npz") for name in names]
    return [_read_original(folder / name) for name in names]


def _read_original(path: Path) -> _Batch:
    batch = read_inert(path)
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        found = pixels.shape if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{path}: expected 'data' to be an array of shape (N, 3072), found {found}; {_AGAIN}")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise DataError(f"{path}: expected 'labels' to be a list of ints, found another structure; {_AGAIN}")
    # a copy: the array is a view of the file's bytes, which torch must not be able to write to
    return _checked(path, pixels.reshape(-1, 3, 32, 32).copy(), np.array(labels, dtype=np.int64))


def _read_compact(path: Path) -> _Batch:
    arrays = read_arrays(path, ("delta", "labels"))
    delta, labels = arrays["delta"], arrays["labels"]
    if delta.dtype != np.uint8 or delta.ndim != 4 or (delta.shape[0], *delta.shape[2:]) != (3, 32, 32):
        raise DataError(
            f"{path}: expected 'delta' to be uint8 (3, N, 32, 32), found {delta.dtype} "
            f"{delta.shape}; {_AGAIN}"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{path}: expected 'labels' to be integers (N,), found {labels.dtype} {labels.shape}; {_AGAIN}"
        )
    return _checked(path, decode(delta), labels.astype(np.int64))


def _checked(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> _Batch:
    if len(images) != len(labels):
        raise DataError(
            f"{path}: expected one label an image, found {len(images)} images and "
            f"{len(labels)} labels; {_AGAIN}"
        )
    return images, labels
