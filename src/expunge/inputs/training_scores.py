"""How a model scores on the data it was trained on, and what explains it when it scores badly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples, Source
from expunge.data.images import ImageSource, channel_statistics
from expunge.inputs.pictures import DecodedSource
from expunge.inputs.training_data import IMAGENET, TrainingData
from expunge.training.loop import predict
from expunge.training.numerics import Numerics

_REORDERED = 0.1

_GAIN = 0.05
"""Accuracy that another normalisation must add before it is proposed."""

_Counts = npt.NDArray[np.int64]


def confusion(labels: Tensor, predictions: Tensor, n_classes: int) -> _Counts:
    """Return counts (C, C): row i, column j is how often label i is predicted as j."""
    pairs = labels.cpu() * n_classes + predictions.cpu()
    counts: _Counts = torch.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).numpy()
    return counts


@dataclass(frozen=True)
class ClassOrder:
    """The order of classes that fits the predictions best.

    Args:
        assigned: for each label of the data, the logit that stands for it.
        accuracy: of the predictions in that order, in [0, 1].
        moved: labels whose logit is another one, most of whose examples say so.
    """

    assigned: tuple[int, ...]
    accuracy: float
    moved: tuple[int, ...]

    def names(self, classes: Sequence[str]) -> list[str]:
        """The class names in the order of the logits."""
        ordered = list(classes)
        for label, logit in enumerate(self.assigned):
            ordered[logit] = classes[label]
        return ordered


def best_class_order(counts: _Counts) -> ClassOrder:
    """Return the one-to-one assignment of logits to labels that the most predictions agree with.

    A label counts as moved where more than half of its examples, of five at least, are predicted as
    another one: a constant prediction moves at most one.
    """
    from scipy.optimize import linear_sum_assignment  # takes a second to import

    rows, columns = linear_sum_assignment(counts, maximize=True)
    total = counts.sum(1)
    moved = [
        int(i)
        for i, j in zip(rows, columns, strict=True)
        if i != j and total[i] >= 5 and counts[i, j] > total[i] / 2
    ]
    right = counts[rows, columns].sum() / max(1, counts.sum())
    return ClassOrder(tuple(int(j) for j in columns), float(right), tuple(moved))


def fit(model: nn.Module, examples: Examples, numerics: Numerics, batch_size: int) -> float:
    """Return the accuracy in [0, 1], by which ways to read the data are compared.

    Where the classes are clearly in another order than the model's it is that in its order, less a tenth: a reading
    that needs no other order is the likelier one.
    """
    answers = predict(model, examples, numerics, batch_size).argmax(1)
    order = best_class_order(confusion(examples.labels, answers, examples.n_classes))
    if len(order.moved) > 1:
        return order.accuracy - _REORDERED
    return float((answers == examples.labels).double().mean())


def chance(labels: Tensor, n_classes: int) -> float:
    """Accuracy without looking at the inputs: the share of the largest class, at least 1 / C."""
    largest = int(torch.bincount(labels.cpu(), minlength=n_classes).max()) / max(1, len(labels))
    return max(largest, 1 / n_classes)


def sample(examples: Examples, size: int, generator: torch.Generator) -> Examples:
    """Return up to ``size`` of the examples, drawn at random, in their order."""
    if len(examples) <= size:
        return examples
    return examples.select(torch.randperm(len(examples), generator=generator)[:size].sort().values)


class Alternative(NamedTuple):
    """Another way to normalise the images: the option, the accuracy it gives, in [0, 1], and the data read so."""

    option: str
    accuracy: float
    data: TrainingData


def better_normalisation(
    model: nn.Module,
    data: TrainingData,
    examples: Examples,
    numerics: Numerics,
    batch_size: int,
    accuracy: float,
) -> Alternative | None:
    """Return the best of the other usual normalisations, where it clearly exceeds ``accuracy``.

    ``None`` too where the inputs are no uint8 images.
    """
    source = data.examples.source
    if accuracy >= 1 - _GAIN or not isinstance(source, ImageSource | DecodedSource):
        return None
    channels = len(data.mean)
    ways = {
        "--normalise imagenet": IMAGENET,
        "--normalise half": ((0.5,) * channels, (0.5,) * channels),
        "--normalise none": ((0.0,) * channels, (1.0,) * channels),
    }
    if isinstance(source, ImageSource):
        ways["--normalise data"] = channel_statistics(source.images, data.examples.index)
    found = []
    for option, (mean, std) in ways.items():
        if len(mean) == channels and not np.allclose((mean, std), (data.mean, data.std), atol=5e-3):
            read: Source = replace(source, mean=mean, std=std)
            right = fit(model, replace(examples, source=read), numerics, batch_size)
            other = replace(data, examples=replace(data.examples, source=read))
            found.append(Alternative(option, right, other))
    best = max(found, key=lambda alternative: alternative.accuracy, default=None)
    return best if best is not None and best.accuracy > accuracy + _GAIN else None
