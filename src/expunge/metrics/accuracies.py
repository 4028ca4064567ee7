"""Accuracies: of named sets, of classes, and of the three sets that gaps and composites are made of."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, Metric, Scored, Value


class SetAccuracies(NamedTuple):
    """Accuracies in [0, 1].

    Attributes:
        forget: a(theta, D_f), given labels.
        retain: a(theta, D_r), given labels.
        test: a(theta, D_t), without the images of a forgotten class or sub-class.
    """

    forget: float
    retain: float
    test: float


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows of logits (N, C) that are largest at the label; a row with NaN counts as wrong.

    Raises:
        InvalidInput: no row, or not one label for each.
    """
    if len(logits) == 0 or labels.shape != logits.shape[:1]:
        raise InvalidInput(
            "accuracy needs at least one row of logits and one label for each, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    right = (logits.argmax(1) == labels) & ~logits.isnan().any(1)
    return float(right.double().mean())


def set_accuracies(evaluated: Evaluated) -> SetAccuracies:
    """Return the accuracies of a model on D_f, D_r and D_t; not defined where one of them is empty."""
    return SetAccuracies(
        accuracy(*evaluated.forget), accuracy(*evaluated.retain), accuracy(*unseen_like_retain(evaluated))
    )


def unseen_like_forget(evaluated: Evaluated) -> Scored:
    """Return the examples that were never trained on and are most like the forget set.

    Where a class or a sub-class is forgotten these are its test images: against the whole test set an
    attack would tell that class from the others, whether or not anything is remembered. Elsewhere it is the
    whole test set. Not defined where the forgotten class has no test images.
    """
    return evaluated.scored("forget_test") if "forget_test" in evaluated.truth.sets else evaluated.test


def unseen_like_retain(evaluated: Evaluated) -> Scored:
    """Return D_t: the test images outside a forgotten class or sub-class, elsewhere the whole test set.

    It is the test set that published tables of class-wise forgetting use.
    """
    return evaluated.scored("remaining_test") if "remaining_test" in evaluated.truth.sets else evaluated.test


class Accuracies(Metric):
    """Accuracy on the named sets of a forgetting task, true labels, no augmentation.

    The forget set's is to be close to the retrained model's: below it the model has over-forgotten.
    """

    name = "accuracies"
    better = "reference"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy on the forget set."""
        return evaluated.accuracy("forget")

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """Name of the set + "_accuracy" -> accuracy in [0, 1], for every set of a forgetting task."""
        evaluated.examples("forget")
        return {
            f"{name}_accuracy": Value(evaluated.accuracy(name))
            for name in evaluated.truth.sets
            if evaluated.has(name)
        }


class PerClassAccuracy(Metric):
    """Accuracy on the clean test images of each class; the value of the metric is the lowest of them."""

    name = "per_class"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy of the worst class."""
        return min(value for value in self.classes(evaluated) if value is not None)

    def classes(self, evaluated: Evaluated) -> list[float | None]:
        """Return one accuracy per class, ``None`` for a class without test images."""
        right, labels = evaluated.right("test"), evaluated.scored("test").labels
        parts = [right[labels == label] for label in range(evaluated.problem.n_classes)]
        return [float(part.double().mean()) if len(part) else None for part in parts]
