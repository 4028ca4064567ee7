from __future__ import annotations

import pytest
import torch

from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput


def test_form() -> None:
    data = learnable_images(n_train=30, n_test=12, n_classes=3, size=10)
    assert data.train_images.shape == (30, 1, 10, 10)
    assert data.test_images.shape == (12, 1, 10, 10)
    assert data.train_labels.bincount().tolist() == [10, 10, 10]
    assert data.test_labels.bincount().tolist() == [4, 4, 4]
    assert data.classes == ("0", "1", "2")


def test_follows_the_seed() -> None:
    assert learnable_images(seed=1).content == learnable_images(seed=1).content
    assert learnable_images(seed=1).content != learnable_images(seed=2).content


def test_nearest_class_mean_classifies_the_test_part() -> None:
    data = learnable_images()
    train, test = data.train_images.double().flatten(1), data.test_images.double().flatten(1)
    means = torch.stack([train[data.train_labels == label].mean(0) for label in range(4)])
    predicted = torch.cdist(test, means).argmin(1)
    assert float((predicted == data.test_labels).double().mean()) > 0.98


@pytest.mark.parametrize("wrong", [{"n_train": 3}, {"n_test": 0}, {"n_classes": 1}, {"size": 0}])
def test_too_small(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=r"learnable images need at least 2 classes.*got n_train="):
        learnable_images(**wrong)
