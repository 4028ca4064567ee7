"""MNIST and Fashion-MNIST from their original idx files, packed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from expunge.data.images import Augmentation, ImageData
from expunge.data.location import data_folder, find_file
from expunge.errors import DataError

_FILES = tuple(
    f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
_GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# Both sets have files of the same names and shapes: what tells them apart is how the training labels begin.
_FIRST_LABELS = {
    "mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7],
    "fashion_mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9],
}
_SUFFIXES = ("", ".gz")
_UNSIGNED_BYTE = 0x08
_AGAIN = "download the file again"


def load_mnist(root: Path | None = None) -> ImageData:
    """MNIST: 70,000 handwritten digits, 28x28 grey; 60,000 to train, 10,000 to test.

    The four original files are looked for in ``root/mnist``, then in ``root``; ``root`` defaults to the
    environment variable ``EXPUNGE_DATA``.

    Raises:
        DataError: a file is missing, truncated or of another shape; the files are Fashion-MNIST's.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE, 1998.
    """
    return _load(root, "mnist", tuple("0123456789"), Augmentation())


def load_fashion_mnist(root: Path | None = None) -> ImageData:
    """Fashion-MNIST: 70,000 photographs of garments, 28x28 grey; 60,000 to train, 10,000 to test.

    The four original files are looked for in ``root/fashion_mnist``; the rest is as in :func:`load_mnist`.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", arXiv:1708.07747, 2017.
    """
    return _load(root, "fashion_mnist", _GARMENTS, Augmentation(pad=2, flip=True))


def read_idx(path: Path) -> Tensor:
    """Read one idx file of unsigned bytes, plain or gzip-packed (its content tells), as a uint8 tensor of its shape.

    Raises:
        DataError: the file cannot be read or unpacked, is no idx file of unsigned bytes, or has more or
            fewer bytes than its header says.
    """
    content = _unpacked(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE or content[3] == 0:
        raise DataError(
            f"{path}: expected an idx file of unsigned bytes (first bytes 00 00 08 and the number of "
            f"dimensions), found {content[:4].hex(' ') or 'nothing'}; {_AGAIN}"
        )
    header = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:header]) if len(content) >= header else ()
    expected = header + (math.prod(shape) if shape else 0)
    if len(content) != expected:
        raise DataError(
            f"{path}: expected {expected} bytes ({header} of header and data of shape {shape}), found "
            f"{len(content)} bytes; {_AGAIN}"
        )
    # bytearray: torch wants memory that may be written to
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].reshape(shape)


def _unpacked(path: Path) -> bytes:
    """Content of the file, unpacked if it is packed."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: expected a whole gzip file, but it does not unpack ({error}); {_AGAIN}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable idx file, but {error.strerror}; check the path and permissions"
        ) from error


def _load(root: Path | None, name: str, classes: tuple[str, ...], augmentation: Augmentation) -> ImageData:
    folder = data_folder(root, name, _FILES, suffixes=_SUFFIXES)
    paths = [find_file(folder, file, _SUFFIXES) or folder / file for file in _FILES]
    train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    for path, images in ((paths[0], train_images), (paths[2], test_images)):
        if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
            raise DataError(
                f"{path}: expected images of shape (N, 28, 28), found {tuple(images.shape)}; {_AGAIN}"
            )
    for path, labels in ((paths[1], train_labels), (paths[3], test_labels)):
        if labels.ndim != 1:
            raise DataError(f"{path}: expected labels of shape (N,), found {tuple(labels.shape)}; {_AGAIN}")
    for other, beginning in _FIRST_LABELS.items():
        if other != name and train_labels[: len(beginning)].tolist() == beginning:
            raise DataError(
                f"{paths[1]}: expected the labels of {name}, found those of {other}; put the files of {name} into "
                f"a folder {name!r}, or load {other}"
            )
    return ImageData(
        name=name,
        train_images=train_images[:, None],
        train_labels=train_labels.to(torch.int64),
        test_images=test_images[:, None],
        test_labels=test_labels.to(torch.int64),
        classes=classes,
        augmentation=augmentation,
    )
