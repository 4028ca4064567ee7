"""Accuracy on each of a task's named sets."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric, Value


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
