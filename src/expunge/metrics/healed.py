"""Healed: corrupted training images predicted as what they truly are."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric, Value, defined


class Healed(Metric):
    """Accuracy on the corrupted training images, true labels, trigger in place, no augmentation.

    Known: the discovered ones. Unknown: the others; not defined at full discovery. All: both together.
    Triggered: the same on all test images, each with the trigger, where images were poisoned.

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

    def triggered(self, evaluated: Evaluated) -> float:
        """Return accuracy over the triggered test images; not defined where nothing was poisoned."""
        return evaluated.accuracy("triggered_test")

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """All, then "healed_known", "healed_unknown" and "healed_triggered" where they are defined."""
        found = {self.name: Value(self(evaluated))}
        for part, call in (("known", self.known), ("unknown", self.unknown), ("triggered", self.triggered)):
            value = defined(call, evaluated)
            if value is not None:
                found[f"{self.name}_{part}"] = Value(value)
        return found
