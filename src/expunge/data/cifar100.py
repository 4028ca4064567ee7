"""CIFAR-100 and CIFAR-20, the same images under their fine or their coarse labels."""

from __future__ import annotations

from pathlib import Path

import torch

from expunge.data.cifar_files import Part, read_files
from expunge.data.images import Augmentation, ImageData
from expunge.data.ranks import rank_in_class

_KINDS = ("fine_labels", "coarse_labels")
_PART_TRAIN = 80
"""Of the hundred test images of a fine class, those that a data set made of the test file alone trains on."""


def load_cifar100(root: Path | None = None) -> ImageData:
    """CIFAR-100: photographs of a hundred classes, 32x32 RGB.

    The original files ``train`` and ``test`` in ``root/cifar-100-python`` are read without executing
    anything, 50,000 images to train and 10,000 to test. Where they are not there, ``root/cifar100/test.npz``
    is: the test images in the compact form of :func:`expunge.data.cifar_files.decode`, of which the first 80
    of each class are trained on and the other 20 are the test set.

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
    (train_images, train), (test_images, test) = _parts(root)
    label = int(coarse)  # the fine labels come first
    return ImageData(
        name=name,
        train_images=torch.from_numpy(train_images),
        train_labels=torch.from_numpy(train[label]),
        test_images=torch.from_numpy(test_images),
        test_labels=torch.from_numpy(test[label]),
        classes=tuple(str(number) for number in range(20 if coarse else 100)),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        augmentation=Augmentation(pad=4, flip=True),
        train_fine=torch.from_numpy(train[0]) if coarse else None,
        test_fine=torch.from_numpy(test[0]) if coarse else None,
    )


def _parts(root: Path | None) -> tuple[Part, Part]:
    """The training and the test part, each with its fine and its coarse labels."""
    found = read_files(root, ("cifar-100-python", ("train", "test")), ("cifar100", ("test",)), _KINDS)
    if len(found) == 2:
        return found[0], found[1]
    ((images, kinds),) = found
    first = (rank_in_class(torch.from_numpy(kinds[0])) < _PART_TRAIN).numpy()
    return (images[first], [labels[first] for labels in kinds]), (
        images[~first],
        [labels[~first] for labels in kinds],
    )
