"""Accuracy on the parts of the data that an audit is about."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric, Value
from expunge.metrics.set_accuracy import set_accuracies


class ForgetAccuracy(Metric):
    """Share of D_f whose stored label is predicted.

    "forget_test_accuracy" is the accuracy on test examples of the classes that are forgotten whole.
    """

    name = "forget_accuracy"
    better = "reference"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share."""
        return set_accuracies(evaluated).forget

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The share, and the accuracy on unseen examples of forgotten classes, where there are any."""
        values = {self.name: Value(self(evaluated))}
        if evaluated.has("forget_test"):
            values["forget_test_accuracy"] = Value(evaluated.accuracy("forget_test"))
        return values


class KeptAccuracy(Metric):
    """Accuracy on the test set, without the classes that are forgotten whole.

    "retain_accuracy" is the share of D_r whose stored label is predicted.
    """

    name = "test_accuracy"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy on the test set."""
        return set_accuracies(evaluated).test

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The accuracy on the test set, and on the retain set."""
        found = set_accuracies(evaluated)
        return {self.name: Value(found.test), "retain_accuracy": Value(found.retain)}
