"""Cost of an unlearning as a share of the cost of retraining."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from expunge.errors import InvalidInput
from expunge.training.cost import Meter

Cost = Meter | Mapping[str, float | int | None]
"""What a run cost: a meter, or a mapping with "seconds", "sample_gradients" and "peak_memory"."""

_ENTRIES = ("seconds", "sample_gradients", "peak_memory")


@dataclass(frozen=True)
class RelativeCost:
    """Cost over cost of the retraining; ``None`` where one of the two is not known or the retraining's is 0.

    Args:
        seconds: of wall time, the device synchronised.
        sample_gradients: of sample gradients.
        peak_memory: of bytes above the start.
    """

    seconds: float | None
    sample_gradients: float | None
    peak_memory: float | None


def relative_cost(cost: Cost, retrain: Cost) -> RelativeCost:
    """Return cost / cost of **that** retraining, entry by entry: same data, recipe and machine.

    Args:
        cost: of the unlearning, of its preparation alone, or of both (see :func:`total_cost`).
        retrain: of training on the retain set.

    Raises:
        InvalidInput: a cost that is negative or not finite.
    """
    found = {name: _quotient(_entry(cost, name), _entry(retrain, name)) for name in _ENTRIES}
    return RelativeCost(**found)


def total_cost(*parts: Cost) -> dict[str, float | None]:
    """Return the cost of several parts, one after the other: sums, and the largest of the peaks.

    For example a search of settings, masks or importances, and the unlearning itself.

    Raises:
        InvalidInput: no part, or a cost that is negative or not finite.
    """
    if not parts:
        raise InvalidInput("the cost of no parts was asked for; give at least one")
    total: dict[str, float | None] = {}
    for name in _ENTRIES:
        entries = [_entry(part, name) for part in parts]
        known = [entry for entry in entries if entry is not None]
        if len(known) < len(entries):
            total[name] = None
        else:
            total[name] = max(known) if name == "peak_memory" else sum(known)
    return total


def _entry(cost: Cost, name: str) -> float | None:
    value = getattr(cost, name) if isinstance(cost, Meter) else cost.get(name)
    if value is None:
        return None
    if not (math.isfinite(value) and value >= 0):
        raise InvalidInput(f"a cost is finite and at least 0, got {name} {value}")
    return float(value)


def _quotient(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference
