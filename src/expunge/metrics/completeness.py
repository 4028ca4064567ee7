"""Agreement of two models' predictions."""

from __future__ import annotations

from torch import Tensor

from expunge.metrics.base import Compares, Evaluated, Metric, Value
from expunge.metrics.distribution import paired_log_probabilities
from expunge.metrics.undefined import undefined_where_invalid


def agreement(first: Tensor, second: Tensor) -> float:
    """Share of the examples for which two models predict the same class, in [0, 1].

    Args:
        first: logits (N, C) of one model.
        second: logits (N, C) of the other on the same examples.

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite.
    """
    paired_log_probabilities(first, second)
    return float((first.argmax(1) == second.argmax(1)).double().mean())


class Completeness(Metric):
    """Share of D_f on which the unlearned and the retrained model predict the same class.

    Further values are the same on D_r and on the test set. Right and wrong predictions count alike.

    Source: Cao and Yang, IEEE S&P 2015.
    """

    name = "completeness"
    better = "higher"
    compares = Compares.RETRAINED
    source = "Cao and Yang, IEEE S&P 2015"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the agreement on the forget set."""
        with undefined_where_invalid():
            return agreement(evaluated.forget.logits, evaluated.retrained.forget.logits)

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The agreement on the forget set, "completeness_retain" and, with a test set, "completeness_test"."""
        reference = evaluated.retrained
        found = {self.name: Value(self(evaluated))}
        with undefined_where_invalid():
            retain = agreement(evaluated.retain.logits, reference.retain.logits)
            found[f"{self.name}_retain"] = Value(retain)
            if evaluated.has("test"):
                test = agreement(evaluated.test.logits, reference.test.logits)
                found[f"{self.name}_test"] = Value(test)
        return found
