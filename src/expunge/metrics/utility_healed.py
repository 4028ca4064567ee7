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

    def __call__(self, evaluated: Evaluated) -> float | None:
        """Return the product, ``None`` if a factor is not defined."""
        utility, healed = Utility()(evaluated), Healed()(evaluated)
        return None if utility is None or healed is None else utility * healed
