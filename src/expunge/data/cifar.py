"""CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from expunge.data.cifar_files import read_files
from expunge.data.images import Augmentation, ImageData

_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(root: Path | None = None) -> ImageData:
    """CIFAR-10: 60,000 photographs of ten classes, 32x32 RGB; 50,000 to train, 10,000 to test.

    Two forms are read, the first where both are there: the original files ``data_batch_1`` .. ``5`` and
    ``test_batch`` in ``root/cifar-10-batches-py``, or a compact form of them, ``data_batch_1.npz`` ..
    ``5`` and ``test_batch.npz`` in ``root/cifar10`` (see :func:`expunge.data.cifar_files.decode`). Either
    may lie in ``root`` itself; ``root`` defaults to the environment variable ``EXPUNGE_DATA``. Nothing in a
    file is executed.
    ``mean`` and ``std`` are the customary ones of the training pixels.

    Raises:
        DataError: files are missing, truncated or of another shape.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    *train, (test_images, (test_labels,)) = read_files(
        root, ("cifar-10-batches-py", _FILES), ("cifar10", _FILES), ("labels",)
    )
    return ImageData(
        name="cifar10",
        train_images=torch.from_numpy(np.concatenate([images for images, _ in train])),
        train_labels=torch.from_numpy(np.concatenate([labels for _, (labels,) in train])),
        test_images=torch.from_numpy(test_images),
        test_labels=torch.from_numpy(test_labels),
        classes=_CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        augmentation=Augmentation(pad=4, flip=True),
    )
