from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as read

from expunge.data.digits import load_digits
from expunge.data.images import Augmentation, ImageData
from expunge.data.loading import load_data
from expunge.errors import UnknownName


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_digits()


def test_shapes_and_types(digits: ImageData) -> None:
    assert digits.name == "digits"
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_labels.dtype == torch.int64
    assert digits.classes == tuple("0123456789")
    assert digits.augmentation == Augmentation()


def test_the_parts_are_the_whole_set_with_its_labels(digits: ImageData) -> None:
    bunch = read()
    whole = sorted(
        (tuple(int(pixel * 255 / 16 + 0.5) for pixel in image.ravel()), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    images = torch.cat([digits.train_images, digits.test_images]).flatten(1).tolist()
    labels = torch.cat([digits.train_labels, digits.test_labels]).tolist()
    assert sorted((tuple(image), label) for image, label in zip(images, labels, strict=True)) == whole


def test_a_fifth_of_every_class_is_in_the_test_part(digits: ImageData) -> None:
    test, train = digits.test_labels.bincount(), digits.train_labels.bincount()
    assert ((test / (test + train)) - 360 / 1797).abs().max() < 0.006


def test_the_training_images_normalise_to_mean_zero_and_variance_one(digits: ImageData) -> None:
    pixels = digits.train_images.numpy() / 255
    assert digits.mean == pytest.approx([np.mean(pixels)])
    assert digits.std == pytest.approx([np.std(pixels)])


def test_it_is_the_same_each_time_and_by_name(digits: ImageData) -> None:
    assert load_digits().content == digits.content
    assert load_data("digits").content == digits.content


def test_an_unknown_name_offers_the_near_one() -> None:
    with pytest.raises(UnknownName, match="unknown data set 'digit'; did you mean 'digits'"):
        load_data("digit")
