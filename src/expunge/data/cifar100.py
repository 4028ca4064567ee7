"""CIFAR-100 and CIFAR-20, the same images under their fine or their coarse labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from expunge.data.cifar import decode
from expunge.data.images import Augmentation, ImageData
from expunge.data.inert_pickle import read_inert
from expunge.data.location import data_folder
from expunge.data.npz import read_arrays
from expunge.errors import DataError

_PART_TRAIN = 80
"""Of the hundred test images of a fine class, those that a data set made of the test file alone trains on."""
_AGAIN = "get the file again"

_Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def load_cifar100(root: Path | None = None) -> ImageData:
    """CIFAR-100: photographs of a hundred classes, 32x32 RGB.

    The original files ``train`` and ``test`` in ``root/cifar-100-python`` are read without executing
    anything, 50,000 images to train and 10,000 to test. Where they are not there, ``root/cifar100/test.npz``
    is: the test images in the compact form of :func:`expunge.data.cifar.decode`, of which the first 80 of each
    class are trained on and the other 20 are the test set.

    Raises:
        DataError: files are missing, truncated or of another shape.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    return _load(root, "cifar100", coarse=False)


def load_cifar20(root: Path | None = None) -> ImageData:
    """CIFAR-20: CIFAR-100 under its twenty coarse labels, five fine classes each.

    The fine labels are kept, so that one of them can be forgotten while its siblings stay. Files and parts
    are those of :func:`load_cifar100`.

    Raises:
        DataError: files are missing, truncated or of another shape.
    """
    return _load(root, "cifar20", coarse=True)


def _load(root: Path | None, name: str, *, coarse: bool) -> ImageData:
    train, test = _parts(root)
    count = 20 if coarse else 100

    def labels(part: _Part) -> torch.Tensor:
        return torch.from_numpy(part[2] if coarse else part[1])

    return ImageData(
        name=name,
        train_images=torch.from_numpy(train[0]),
        train_labels=labels(train),
        test_images=torch.from_numpy(test[0]),
        test_labels=labels(test),
        classes=tuple(str(label) for label in range(count)),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        augmentation=Augmentation(pad=4, flip=True),
        train_fine=torch.from_numpy(train[1]) if coarse else None,
        test_fine=torch.from_numpy(test[1]) if coarse else None,
    )


def _parts(root: Path | None) -> tuple[_Part, _Part]:
    try:
        folder = data_folder(root, "cifar-100-python", ("train", "test"))
    except DataError as original:
        try:
            folder = data_folder(root, "cifar100", ["test.npz"])
        except DataError as compact:
            raise DataError(f"{original}; or, in the compact form, {compact}") from None
        return _divided(_read_compact(folder / "test.npz"))
    return _read_original(folder / "train"), _read_original(folder / "test")


def _divided(whole: _Part) -> tuple[_Part, _Part]:
    images, fine, coarse = whole
    rank = np.zeros(len(fine), dtype=np.int64)
    for label in np.unique(fine):
        members = fine == label
        rank[members] = np.arange(members.sum())
    first = rank < _PART_TRAIN
    return (images[first], fine[first], coarse[first]), (images[~first], fine[~first], coarse[~first])


def _read_original(path: Path) -> _Part:
    batch = read_inert(path)
    pixels = batch.get(b"data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        found = pixels.shape if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{path}: expected 'data' to be an array of shape (N, 3072), found {found}; {_AGAIN}")
    fine, coarse = (
        np.array(batch.get(key, []), dtype=np.int64) for key in (b"fine_labels", b"coarse_labels")
    )
    # a copy: the array is a view of the file's bytes, which torch must not be able to write to
    return _checked(path, pixels.reshape(-1, 3, 32, 32).copy(), fine, coarse)


def _read_compact(path: Path) -> _Part:
    arrays = read_arrays(path, ("delta", "fine_labels", "coarse_labels"))
    delta = arrays["delta"]
    if delta.dtype != np.uint8 or delta.ndim != 4 or (delta.shape[0], *delta.shape[2:]) != (3, 32, 32):
        raise DataError(
            f"{path}: expected 'delta' to be uint8 (3, N, 32, 32), found {delta.dtype} {delta.shape}; {_AGAIN}"
        )
    fine, coarse = (arrays[name].astype(np.int64) for name in ("fine_labels", "coarse_labels"))
    return _checked(path, decode(delta), fine, coarse)


def _checked(
    path: Path, images: npt.NDArray[np.uint8], fine: npt.NDArray[np.int64], coarse: npt.NDArray[np.int64]
) -> _Part:
    if not len(images) == len(fine) == len(coarse):
        raise DataError(
            f"{path}: expected a fine and a coarse label an image, found {len(images)} images, {len(fine)} fine "
            f"and {len(coarse)} coarse labels; {_AGAIN}"
        )
    return images, fine, coarse
