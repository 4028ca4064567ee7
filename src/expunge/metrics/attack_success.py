"""Attack success rate of a poison."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric, NotDefined


class AttackSuccess(Metric):
    """Share of triggered test images, target class excepted, that are predicted as the target class.

    Not defined where nothing was poisoned.
    """

    name = "attack_success"
    better = "lower"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share."""
        target = evaluated.truth.target_class
        if target is None:
            raise NotDefined("nothing was poisoned")
        others = evaluated.scored("triggered_test").labels != target
        hits = evaluated.predicted("triggered_test")[others] == target
        if not len(hits):
            raise NotDefined("every triggered test image is of the target class")
        return float(hits.double().mean())
