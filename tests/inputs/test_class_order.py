"""The remedy for a class order that differs, applied: every source must read the labels in the order named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.errors import DataError
from expunge.inputs.sources import load_dataset_object, load_training_data
from expunge.inputs.table_data import load_table
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.inputs.training_scores import best_class_order, confusion

NUMBERS = [0, 1, 2] * 6
NAMES = ("ant", "bee", "cat")
LOGITS = ("cat", "ant", "bee")
"""The order in which the model was trained."""


def of_folder(folder: Path, options: DataOptions) -> TrainingData:
    return load_training_data(str(folder), options)


def of_npz(folder: Path, options: DataOptions) -> TrainingData:
    path = folder.parent / "a.npz"
    np.savez(path, inputs=np.zeros((18, 2)), labels=NUMBERS, classes=NAMES)
    return load_training_data(str(path), options)


def of_npz_text(folder: Path, options: DataOptions) -> TrainingData:
    path = folder.parent / "a.npz"
    np.savez(path, inputs=np.zeros((18, 2)), labels=[NAMES[i] for i in NUMBERS])
    return load_training_data(str(path), options)


def of_table(folder: Path, options: DataOptions) -> TrainingData:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"a": datasets.Value("float32"), "label": datasets.ClassLabel(names=list(NAMES))}
    )
    table = datasets.Dataset.from_dict({"a": [0.0] * 18, "label": NUMBERS}, features=features)
    return load_table(table, options, "it")


class Dataset(SimpleNamespace):
    classes = NAMES

    def __len__(self) -> int:
        return 18

    def __getitem__(self, row: int) -> Any:
        return torch.zeros(2), NUMBERS[row]


def of_object(folder: Path, options: DataOptions) -> TrainingData:
    return load_dataset_object(Dataset(), options)


SOURCES = [of_folder, of_npz, of_npz_text, of_table, of_object]


@pytest.mark.parametrize("load", SOURCES)
def test_the_proposed_order_is_applied(folder: Path, load: Any) -> None:
    found = load(folder, DataOptions())
    assert (found.classes, found.named_classes) == (NAMES, True)
    labels = found.examples.labels
    truth = [NAMES[label] for label in labels.tolist()]
    predictions = torch.tensor([LOGITS.index(name) for name in truth])
    # four images a class are too few for the finding; the order does not depend on that
    proposed = tuple(best_class_order(confusion(labels, predictions, 3)).names(found.classes))
    assert proposed == LOGITS
    again = load(folder, DataOptions(classes=proposed))
    assert again.classes == LOGITS
    assert torch.equal(again.examples.labels, predictions)
    with pytest.raises(DataError, match="is none of the classes"):
        load(folder, DataOptions(classes=("ant", "bee", "dog")))


def test_a_named_data_set_is_renumbered() -> None:
    data = load_training_data("digits")
    order = tuple("1023456789")
    again = load_training_data("digits", DataOptions(classes=order))
    swapped = data.examples.labels.clone()
    swapped[data.examples.labels == 0], swapped[data.examples.labels == 1] = 1, 0
    assert again.classes == order
    assert torch.equal(again.examples.labels, swapped)
