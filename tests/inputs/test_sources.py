from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.data.digits import load_digits
from expunge.errors import DataError, InvalidInput
from expunge.inputs.sources import load_training_data, load_validation_data
from expunge.inputs.training_data import IMAGENET, DataOptions


def test_a_named_data_set() -> None:
    data = load_training_data("digits")
    digits = load_digits()
    assert len(data) == len(digits.train_labels)
    assert (data.classes, data.mean, data.std) == (digits.classes, digits.mean, digits.std)
    held = load_validation_data("digits", DataOptions(), data)
    assert torch.equal(next(held.batches(4)).x, next(digits.test().batches(4)).x)
    half = load_training_data("digits", DataOptions(normalise="half"))
    assert (half.mean, half.std) == ((0.5,), (0.5,))


def test_validation_images_are_read_as_the_training_images(folder: Path, tmp_path: Path) -> None:
    training = load_training_data(str(folder))
    (tmp_path / "held" / "cat").mkdir(parents=True)
    Image.new("L", (8, 8), 90).save(tmp_path / "held" / "cat" / "1.png")
    held = load_validation_data(str(tmp_path / "held"), DataOptions(), training)
    assert (held.labels.tolist(), held.n_classes) == ([2], 3)
    expected = (90 / 255 - torch.tensor(training.mean)) / torch.tensor(training.std)
    torch.testing.assert_close(
        next(held.batches(1)).x[0], expected[:, None, None].expand(3, 8, 8), rtol=1e-4, atol=1e-5
    )
    Image.new("L", (9, 9), 90).save(tmp_path / "held" / "cat" / "1.png")
    with pytest.raises(DataError, match=r"\(3, 9, 9\), but those of the training data \(3, 8, 8\); --size 8"):
        load_validation_data(str(tmp_path / "held"), DataOptions(), training)


def test_validation_texts_may_have_another_length(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.ones((4, 3), int), labels=[0, 1, 0, 1])
    np.savez(tmp_path / "b.npz", inputs=np.ones((4, 5), int), labels=[0, 1, 0, 1])
    np.savez(tmp_path / "c.npz", inputs=np.ones((4, 5), int), labels=[0, 1, 2, 1])
    training = load_training_data(str(tmp_path / "a.npz"))
    assert len(load_validation_data(str(tmp_path / "b.npz"), DataOptions(), training)) == 4
    with pytest.raises(DataError, match="3 classes, but the training data has 2"):
        load_validation_data(str(tmp_path / "c.npz"), DataOptions(), training)


def test_normalisation_as_given(folder: Path) -> None:
    assert load_training_data(str(folder), DataOptions(normalise="imagenet")).mean == IMAGENET[0]
    given = load_training_data(str(folder), DataOptions(mean=(0.1,), std=(0.2,)))
    assert (given.mean, given.std) == ((0.1,) * 3, (0.2,) * 3)
    none = load_training_data(str(folder), DataOptions(normalise="none"))
    assert (
        0
        <= float(next(none.examples.batches(12)).x.min())
        <= float(next(none.examples.batches(12)).x.max())
        <= 1
    )
    with pytest.raises(DataError.__mro__[1], match="3 numbers normalise images of 1 channel"):
        load_training_data("digits", DataOptions(normalise="imagenet"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digit", "there is no data 'digit'; did you mean 'digits'"),
        ("/nowhere/images", "there is no data '/nowhere/images'; expected a folder"),
        ("gone.csv", "there is no data 'gone.csv'"),
        ("gone.npz", "no such file"),
        ("digits?n=3", "takes no settings"),
    ],
)
def test_no_such_data(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_training_data(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "kind"}, "--label says nothing about .*images, which is read without it; leave it out"),
        ({"tokenizer": "x"}, "--tokenizer says nothing about"),
        ({"split": "test"}, "--split says nothing about"),
        ({"root": Path("x")}, "--data-root says nothing about"),
    ],
)
def test_options_that_say_nothing_are_errors(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        load_training_data(str(folder), DataOptions(**options))


def test_what_the_models_own_pipeline_says_may_go_unused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.zeros((3, 2)), labels=np.arange(3))
    own = DataOptions(size=8, mean=(0.5,), std=(0.5,), defaults=("size", "mean", "std"))
    assert len(load_training_data(str(tmp_path / "a.npz"), own)) == 3
    with pytest.raises(InvalidInput, match="--size says nothing about"):
        load_training_data(str(tmp_path / "a.npz"), DataOptions(size=8))
