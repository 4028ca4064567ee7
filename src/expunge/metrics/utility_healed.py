"""The product of Utility and Healed."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Metric
from expunge.metrics.healed import Healed
from expunge.metrics.utility import Utility


class UtilityHealed(Metric):
    """Utility x Healed: high only where both are. Averages are of the products, not of the factors.

    Source: Schoepf et al., arXiv 2505.17730.
    """

    name = "utility_healed"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the product; not defined where a factor is not."""
        return Utility()(evaluated) * Healed()(evaluated)
