"""Interclass confusion: two classes whose labels were swapped, and what of it is left."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, Metric, NotDefined, Value


def interclass_error(predicted: Tensor, labels: Tensor, classes: tuple[int, int]) -> float:
    """IC-error: share of the examples of A and B that are predicted as anything else, in [0, 1].

    Args:
        predicted: int64 (N,), predicted classes; -1 for none.
        labels: int64 (N,), true labels.
        classes: (A, B).

    Raises:
        InvalidInput: lengths that differ, or no example of A or B.

    Source: Goel et al., arXiv 2201.06640.
    """
    inside = _of(labels, classes, predicted)
    return float((predicted[inside] != labels[inside]).double().mean())


def fgt_error(predicted: Tensor, labels: Tensor, classes: tuple[int, int]) -> int:
    """Fgt-error: number of examples of A predicted as B, and of B predicted as A.

    Arguments, errors and source are those of :func:`interclass_error`.
    """
    _of(labels, classes, predicted)
    first, second = classes
    there = (labels == first) & (predicted == second)
    back = (labels == second) & (predicted == first)
    return int(there.sum() + back.sum())


def _of(labels: Tensor, classes: tuple[int, int], predicted: Tensor) -> Tensor:
    if predicted.shape != labels.shape or labels.ndim != 1:
        raise InvalidInput(
            "one predicted class for each label is expected, got shapes "
            f"{tuple(predicted.shape)} and {tuple(labels.shape)}"
        )
    inside = (labels == classes[0]) | (labels == classes[1])
    if not bool(inside.any()):
        raise InvalidInput(f"there is no example of the swapped classes {classes[0]} and {classes[1]}")
    return inside


class _OnSwappedClasses(Metric):
    """A count over two swapped classes, on the test set and on both parts of the training set."""

    better = "lower"
    source = "Goel et al., arXiv 2201.06640"

    @staticmethod
    @abstractmethod
    def formula(predicted: Tensor, labels: Tensor, classes: tuple[int, int]) -> float:
        """Return the number for one set."""

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The numbers on the test set, on the forget and on the retain set, where they hold such images."""
        swapped = evaluated.truth.swapped
        if len(swapped) != 2:
            raise NotDefined("no classes were swapped")
        classes = swapped[0], swapped[1]
        mask = evaluated.problem.split.forget_mask.cpu()
        true = evaluated.truth.true_labels.cpu()
        parts = {
            "test": (evaluated.test.predicted, evaluated.test.labels),
            "forget": (evaluated.forget.predicted, true[mask]),
            "retain": (evaluated.retain.predicted, true[~mask]),
        }
        found: dict[str, Value] = {}
        for part, (predicted, labels) in parts.items():
            name = self.name if part == "test" else f"{self.name}_{part}"
            if part == "test" or bool(torch.isin(labels, torch.tensor(classes)).any()):
                found[name] = Value(float(self.formula(predicted, labels, classes)))
        return found


class InterclassError(_OnSwappedClasses):
    """Share of test images of two swapped classes that get another than their true label.

    "interclass_error_forget" and "interclass_error_retain" are the same on the discovered and on all other
    training images of the two, undiscovered corruption included, always with true labels.
    """

    name = "interclass_error"
    formula = staticmethod(interclass_error)


class FgtError(_OnSwappedClasses):
    """Number of test images of two swapped classes that are taken for each other.

    "fgt_error_forget" and "fgt_error_retain" are the same on the discovered and on all other training
    images, with true labels.
    """

    name = "fgt_error"
    unit = "images"
    formula = staticmethod(fgt_error)
