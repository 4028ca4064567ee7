"""Accuracy class by class."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric


class PerClassAccuracy(Metric):
    """Accuracy on the clean test images of each class; the value of the metric is the lowest of them."""

    name = "per_class"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy of the worst class."""
        return min(value for value in self.classes(evaluated) if value is not None)

    def classes(self, evaluated: Evaluated) -> list[float | None]:
        """Return one accuracy per class, ``None`` for a class without test images."""
        right, labels = evaluated.right("test"), evaluated.scored("test").labels
        values: list[float | None] = []
        for label in range(evaluated.problem.n_classes):
            members = right[labels == label]
            values.append(float(members.double().mean()) if len(members) else None)
        return values
