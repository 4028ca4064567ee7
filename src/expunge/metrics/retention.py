"""Retention: each accuracy as a share of the retrained model's."""

from __future__ import annotations

from functools import partial

from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined, Value, value_or_reason
from expunge.metrics.set_accuracy import set_accuracies
from expunge.metrics.undefined import undefined_where_invalid


def retention(unlearned: float, retrained: float) -> float:
    """Return a(theta_u, S) / a(theta_r, S), at least 0.

    Raises:
        InvalidInput: the retrained model's accuracy is 0.
    """
    if retrained == 0:
        raise InvalidInput("the retrained model has accuracy 0 there, which nothing can be a share of")
    return unlearned / retrained


class Retention(Metric):
    """Retention ratios a(theta_u, S) / a(theta_r, S) on D_r (RR), D_f (FR) and D_t (TR).

    The value is RR. 1 is what the retrained model has; FR above 1 is a forget set that is still known, below 1 one
    that is over-forgotten. FR is not defined where the retrained model gets no example of D_f right, as for a
    forgotten class.
    """

    name = "retention"
    unit = "ratio"
    better = "reference"
    compares = Compares.RETRAINED
    source = "Cadet et al., arXiv 2410.01276 (Deep Unlearn)"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return RR."""
        return self.on(evaluated, "retain")

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """RR, and FR and TR as that name with "_forget" and "_test"."""
        found: dict[str, Value | NotDefined] = {self.name: Value(self(evaluated))}
        for part in ("forget", "test"):
            found[f"{self.name}_{part}"] = value_or_reason(partial(self.on, evaluated, part))
        return found

    def on(self, evaluated: Evaluated, part: str) -> float:
        """Return the ratio on "forget", "retain" or "test".

        Raises:
            NotDefined: the retrained model has accuracy 0 there.
        """
        mine, aim = set_accuracies(evaluated)._asdict(), set_accuracies(evaluated.retrained)._asdict()
        with undefined_where_invalid():
            return retention(mine[part], aim[part])
