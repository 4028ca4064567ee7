"""Tiny images that a small network learns in seconds, for tests and examples."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.data.images import ImageData
from expunge.errors import InvalidInput
from expunge.seeding import generator

_NOISE = 40.0
"""Standard deviation of the pixel noise, in grey levels; prototypes range over 0..255."""


def learnable_images(
    n_train: int = 256, n_test: int = 128, n_classes: int = 4, size: int = 8, seed: int = 0
) -> ImageData:
    """Grey images made of one random prototype per class plus noise; every class is equally frequent.

    Args:
        n_train: training images.
        n_test: test images.
        n_classes: at least 2.
        size: height and width in pixels.
        seed: of prototypes and noise.

    Raises:
        InvalidInput: a count or a size that is too small.
    """
    if min(n_train, n_test) < n_classes or n_classes < 2 or size < 1:
        raise InvalidInput(
            "learnable images need at least 2 classes, an image of each in both parts and 1 pixel, got "
            f"n_train={n_train}, n_test={n_test}, n_classes={n_classes}, size={size}"
        )
    draw = generator(seed, "learnable images")
    prototypes = torch.rand(n_classes, 1, size, size, generator=draw) * 255

    def sample(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randperm(count, generator=draw) % n_classes
        noise = torch.randn(count, 1, size, size, generator=draw) * _NOISE
        return (prototypes[labels] + noise).round().clamp(0, 255).to(torch.uint8), labels

    train_images, train_labels = sample(n_train)
    test_images, test_labels = sample(n_test)
    return ImageData(
        name="learnable",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=tuple(str(label) for label in range(n_classes)),
    )
