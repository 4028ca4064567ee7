"""Corrective unlearning: accuracy where the corruption acts, and elsewhere."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric, NotDefined, Value


class Corrective(Metric):
    """Accuracy on the affected domain, true labels, and accuracy elsewhere.

    Acc_corr: over triggered test images where images were poisoned, test images of the two classes where classes were
    swapped, and both together where both. Acc_ret, "retained_accuracy": over clean test images, the swapped
    classes excepted. The reference is a model trained without any corrupted image; retraining without the
    discovered ones is none while others remain.

    Source: Goel et al., arXiv 2402.14015.
    """

    name = "corrected_accuracy"
    source = "Goel et al., arXiv 2402.14015"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return Acc_corr; not defined where labels were random, which has no domain of its own."""
        if not evaluated.has("triggered_test") and not evaluated.has("swapped_classes"):
            raise NotDefined("the corruption has no domain of its own: nothing poisoned, no classes swapped")
        return evaluated.accuracy("triggered_test", "swapped_classes")

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """Acc_corr and Acc_ret."""
        corrected = Value(self(evaluated))
        elsewhere = "other_classes" if evaluated.has("swapped_classes") else "test"
        return {self.name: corrected, "retained_accuracy": Value(evaluated.accuracy(elsewhere))}
