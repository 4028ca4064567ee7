"""Accuracy on triggered images."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric, NotDefined


class RobustAccuracy(Metric):
    """Share of triggered test images, target class excepted, that are given their true label.

    The same images as those of the attack success rate, so that the two add up to 1 at most.

    Source: Wu et al. (BackdoorBench), NeurIPS 2022.
    """

    name = "robust_accuracy"
    source = "Wu et al., NeurIPS 2022"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share; not defined where nothing was poisoned."""
        target = evaluated.truth.target_class
        if target is None:
            raise NotDefined("nothing was poisoned")
        right = evaluated.right("triggered_test")[evaluated.scored("triggered_test").labels != target]
        if not len(right):
            raise NotDefined("every triggered test image is of the target class")
        return float(right.double().mean())
