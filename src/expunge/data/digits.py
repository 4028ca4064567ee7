"""scikit-learn's handwritten digits: 1,797 real 8x8 grey images that need no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from expunge.data.images import ImageData


def load_digits(root: Path | None = None) -> ImageData:
    """The 1,797 handwritten digits of scikit-learn, 8x8 grey; 1,437 to train, 360 to test.

    The split is stratified and fixed; pixels 0..16 become 0..255. ``root`` is not used: the images come
    with scikit-learn.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998
    (its test part).
    """
    from sklearn.datasets import load_digits as read
    from sklearn.model_selection import train_test_split

    bunch = read()
    labels = np.asarray(bunch.target)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    train.sort()
    test.sort()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    targets = torch.from_numpy(labels.astype(np.int64))
    return ImageData(
        name="digits",
        train_images=pixels[train],
        train_labels=targets[train],
        test_images=pixels[test],
        test_labels=targets[test],
        classes=tuple("0123456789"),
    )
