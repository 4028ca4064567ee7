"""Attack success rate of a poison."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric


class AttackSuccess(Metric):
    """Share of triggered test images, target class excepted, that are predicted as the target class.

    Not defined where nothing was poisoned.
    """

    name = "attack_success"
    better = "lower"

    def __call__(self, evaluated: Evaluated) -> float | None:
        """Return the share."""
        target = evaluated.truth.target_class
        if target is None or not evaluated.has("triggered_test"):
            return None
        others = evaluated.truth.sets["triggered_test"].labels != target
        hits = evaluated.predicted("triggered_test")[others] == target
        return float(hits.double().mean()) if len(hits) else None
