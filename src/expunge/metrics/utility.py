"""Utility: what the model is still good for."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric


class Utility(Metric):
    """Accuracy on the clean test set; where classes were swapped, on the other classes' images.

    Source: Schoepf et al., arXiv 2505.17730.
    """

    name = "utility"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy."""
        return evaluated.accuracy("other_classes" if evaluated.truth.swapped else "test")
