"""Healed: corrupted training images predicted as what they truly are."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric


class Healed(Metric):
    """Accuracy on the corrupted training images, true labels, trigger in place, no augmentation.

    Known: the discovered ones. Unknown: the others; not defined at full discovery. All: both together.

    Source: Schoepf et al., arXiv 2505.17730. Departure: images in a fixed order, so that predictions and
    labels belong together also on the poison.
    """

    name = "healed"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return accuracy over all corrupted images."""
        return evaluated.accuracy("corrupted_known", "corrupted_unknown")

    def known(self, evaluated: Evaluated) -> float:
        """Return accuracy over the discovered images."""
        return evaluated.accuracy("corrupted_known")

    def unknown(self, evaluated: Evaluated) -> float:
        """Return accuracy over the undiscovered images; not defined if there are none."""
        return evaluated.accuracy("corrupted_unknown")
