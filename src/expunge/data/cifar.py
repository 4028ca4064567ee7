"""CIFAR-10, CIFAR-100 and CIFAR-20: from original Python batches (never unpickled), or a compact coding of them."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from expunge.data.images import Augmentation, ImageData, rank_in_class
from expunge.data.location import data_folder
from expunge.data.npz import read_arrays
from expunge.errors import DataError

_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(root: Path | None = None) -> ImageData:
    """CIFAR-10: 60,000 photographs of ten classes, 32x32 RGB; 50,000 to train, 10,000 to test.

    Two forms are read, the first where both are there: the original files ``data_batch_1`` .. ``5`` and
    ``test_batch`` in ``root/cifar-10-batches-py``, or a compact form of them, ``data_batch_1.npz`` ..
    ``5`` and ``test_batch.npz`` in ``root/cifar10`` (see :func:`decode`). Either may lie in ``root`` itself; ``root``
    defaults to the environment variable ``EXPUNGE_DATA``. Nothing in a file is executed. ``mean`` and ``std`` are
    the customary ones of the training pixels.

    Raises:
        DataError: files are missing, truncated or of another shape.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    *train, test = _read_files(root, ("cifar-10-batches-py", _FILES), ("cifar10", _FILES), ("labels",))
    images = np.concatenate([images for images, _ in train])
    labels = np.concatenate([labels for _, (labels,) in train])
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _data("cifar10", (images, [labels]), test, _CLASSES, mean=mean, std=std)


_KINDS = ("fine_labels", "coarse_labels")
_PART_TRAIN = 80
"""Of the hundred test images of a fine class, those that a data set made of the test file alone trains on."""


def load_cifar100(root: Path | None = None) -> ImageData:
    """CIFAR-100: photographs of a hundred classes, 32x32 RGB.

    The original files ``train`` and ``test`` in ``root/cifar-100-python`` are read without executing
    anything, 50,000 images to train and 10,000 to test. Where they are not there, ``root/cifar100/test.npz``
    is: the test images in the compact form of :func:`decode`, of which the first 80 of each class are trained on and
    the other 20 are the test set.

    Raises:
        DataError: files are missing, truncated or of another shape.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    return _load(root, "cifar100", 100)


def load_cifar20(root: Path | None = None) -> ImageData:
    """CIFAR-20: CIFAR-100 under its twenty coarse labels, five fine classes each.

    The fine labels are kept, so that one of them can be forgotten while its siblings stay. Files and parts
    are those of :func:`load_cifar100`.

    Raises:
        DataError: files are missing, truncated or of another shape.
    """
    return _load(root, "cifar20", 20)


def _load(root: Path | None, name: str, n_classes: int) -> ImageData:
    """The data set under its fine labels, which come first in a file, or under the coarse ones."""
    train, *rest = _read_files(root, ("cifar-100-python", ("train", "test")), ("cifar100", ("test",)), _KINDS)
    if rest:
        (test,) = rest
    else:
        images, kinds = train
        first = (rank_in_class(torch.from_numpy(kinds[0])) < _PART_TRAIN).numpy()
        train, test = ((images[part], [labels[part] for labels in kinds]) for part in (first, ~first))
    fine: dict[str, Any] = {}
    if n_classes == 20:
        fine = {"train_fine": torch.from_numpy(train[1][0]), "test_fine": torch.from_numpy(test[1][0])}
        train, test = (train[0], train[1][1:]), (test[0], test[1][1:])
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _data(name, train, test, tuple(map(str, range(n_classes))), mean=mean, std=std, **fine)


def _data(name: str, train: Part, test: Part, classes: tuple[str, ...], **further: Any) -> ImageData:
    """The data set under the first kind of labels."""
    return ImageData(
        name=name,
        train_images=torch.from_numpy(train[0]),
        train_labels=torch.from_numpy(train[1][0]),
        test_images=torch.from_numpy(test[0]),
        test_labels=torch.from_numpy(test[1][0]),
        classes=classes,
        augmentation=Augmentation(pad=4, flip=True),
        **further,
    )


_AGAIN = "get the file again"

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Part = tuple[Images, list[Labels]]
"""What a file holds: images (N, 3, H, W) and, for every kind of label, one an image (N,)."""


def _read_files(
    root: Path | None,
    original: tuple[str, Sequence[str]],
    compact: tuple[str, Sequence[str]],
    kinds: Sequence[str],
) -> list[Part]:
    """Read every file of the original form (folder, names), or of the compact one where that is not there."""
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
        named = (kind.removesuffix("labels").rstrip("_") for kind in kinds)
        counts = [f"{len(images)} images"]
        counts += [f"{len(labels)} {name}".rstrip() for labels, name in zip(columns, named, strict=True)]
        raise DataError(
            f"{path}: expected one label of each kind an image, found {', '.join(counts[:-1])} and {counts[-1]} "
            f"labels; {_AGAIN}"
        )
    return images, columns


# The original batches are Python 2 pickles. Three names occur in them, those of which a NumPy array consists; classes
# of this module stand in for them, and any other name is refused: none is imported or called.


def read_inert(path: Path) -> dict[bytes, object]:
    """Read a Python 2 pickle of one dictionary: ints, bytes, None, lists, tuples, dictionaries and uint8 arrays.

    Raises:
        DataError: the file cannot be read, is truncated, or asks for anything but those.
    """
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
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


class _Unpickler(pickle.Unpickler):
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
