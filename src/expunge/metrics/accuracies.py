"""Accuracy on each of a task's named sets."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric


class Accuracies(Metric):
    """Accuracy on the named sets of a forgetting task, true labels, no augmentation.

    The forget set's is to be close to the retrained model's: below it the model has over-forgotten.
    """

    name = "accuracies"
    better = "reference"

    def __call__(self, evaluated: Evaluated) -> float | None:
        """Return the accuracy on the forget set."""
        return evaluated.accuracy("forget")

    def all(self, evaluated: Evaluated) -> dict[str, float | None]:
        """Name of the set + "_accuracy" -> accuracy in [0, 1], for every set of a forgetting task."""
        if not evaluated.has("forget"):
            return {}
        return {f"{name}_accuracy": evaluated.accuracy(name) for name in evaluated.truth.sets}
