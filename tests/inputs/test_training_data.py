from __future__ import annotations

from typing import Any

import pytest
import torch

from expunge.data.joined import in_memory
from expunge.errors import DataError, InvalidInput
from expunge.inputs.training_data import DataOptions, TrainingData, given_names, number_labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"normalise": "cifar"}, "normalise must be one of auto, data, imagenet, half, none, got 'cifar'"),
        ({"mean": (0.5,)}, "mean and std belong together"),
        ({"mean": (0.5,) * 2, "std": (0.5,) * 2}, "take 1 or 3 numbers each, got 2 and 2"),
        ({"mean": (0.5,), "std": (0.5,) * 3}, "take 1 or 3 numbers each, got 1 and 3"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be above 0"),
        ({"mean": (125.0,), "std": (60.0,)}, "divide them by 255"),
        ({"channels": 4}, "channels must be 1 or 3, got 4"),
        ({"size": 0}, "size must be at least 1"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"crop": True}, "give size too"),
        ({"pad": -1}, "at least 0"),
    ],
)
def test_bad_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        DataOptions(**given)


@pytest.mark.parametrize(
    ("found", "classes", "expected"),
    [
        ([0, 2, 1], (), ([0, 2, 1], ("0", "1", "2"), False)),
        ([0.0, 2.0], ("a", "b", "c"), ([0, 2], ("a", "b", "c"), True)),
        (["dog", "ant", "dog"], (), ([1, 0, 1], ("ant", "dog"), True)),
        (["dog", "ant"], ("dog", "cow", "ant"), ([0, 2], ("dog", "cow", "ant"), True)),
        ([True, False], (), ([1, 0], ("0", "1"), False)),
    ],
)
def test_labels_become_numbers(found: list[Any], classes: tuple[str, ...], expected: Any) -> None:
    labels, names, named = number_labels(found, classes, "the table")
    assert (labels.tolist(), names, named) == expected
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("found", "classes", "said"),
    [
        ([0, None], (), "row 1 has no label"),
        ([0.0, float("nan")], (), "row 1 has no label"),
        (["a", "b"], ("a",), "row 1 has label 'b', which is none of the classes a"),
        (["a", 1], (), "row 1 has label 1 and others have text, such as 'a'; expected whole numbers"),
        (["1", "NA"], (), "row 1 has no label"),
        (
            [0, 1, 4],
            ("1", "2", "3", "4"),
            "row 0 has label 0, .* others are names of classes, and one list keeps",
        ),
        ([0.5, 1], (), "row 0 has label 0.5"),
        ([0, -1], (), "row 1 has label -1"),
        ([0, 7], (), "row 1 has label 7, but there are only 2 rows"),
        ([0, 3], ("a", "b"), "row 1 has label 3, but 2 classes were named"),
    ],
)
def test_bad_labels(found: list[Any], classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=f"the table: {said}"):
        number_labels(found, classes, "the table")


def test_more_logits_than_labels_say(named: TrainingData) -> None:
    numbers = TrainingData(
        in_memory(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), 2), ("0", "1"), named_classes=False
    )
    wider = numbers.with_n_classes(5)
    assert (wider.classes, wider.examples.n_classes) == (("0", "1", "2", "3", "4"), 5)
    assert numbers.with_n_classes(2) is numbers
    with pytest.raises(InvalidInput, match="has 1 classes, but the data has 2;"):
        numbers.with_n_classes(1)
    with pytest.raises(
        InvalidInput, match=r"has 5 classes, but the data has 3 \(ant, bee, cat\); .*--classes"
    ):
        named.with_n_classes(5)
    assert (named.name(3), numbers.name(3)) == ("bee/3.png", "row 3")
    assert (named.shape, named.sequences) == ((4,), False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("cat", " dog"), ("cat", "dog")),
        (("dog", " wild", "dog", " tame", "cat"), ("dog, wild", "dog, tame", "cat")),
        (("'dog", " wild", "ant'"), ("dog, wild", "ant")),
        (("dog, wild", "cafe\u0301"), ("dog, wild", "caf\u00e9")),
        (("owl", "cat"), ("owl", "cat")),
    ],
)
def test_names_that_hold_commas(given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert given_names(given, ("dog, tame", "dog, wild", "cat", "ant", "caf\u00e9"), "classes") == expected
    with pytest.raises(InvalidInput, match="classes names one twice"):
        given_names((*given, *given), ("dog, tame", "dog, wild"), "classes")
