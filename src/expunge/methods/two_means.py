"""The exact two-means cut of values on a line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """Values cut in two where the variance within both parts is least.

    Attributes:
        threshold: between the parts.
        separation: distance between the parts' means over their pooled standard deviation; about 2.6 for one
            normal distribution cut in the middle, 3.5 for a uniform one.
    """

    threshold: float
    separation: float


def two_means(values: Tensor) -> Cut:
    """Return the exact one-dimensional two-means cut of ``values`` (N,), N >= 4, with two values a side."""
    ordered = values.cpu().double().sort().values  # not every accelerator has float64
    n = len(ordered)
    sums, below = ordered.cumsum(0)[:-1], torch.arange(1, n, dtype=torch.float64)
    total = ordered.sum()
    between = (sums / below - (total - sums) / (n - below)).square() * below * (n - below)
    last = int(between[1:-1].argmax()) + 1  # one value has no variance
    low, high = ordered[: last + 1], ordered[last + 1 :]
    spread = float(((low.var() + high.var()) / 2).sqrt())
    return Cut(
        threshold=float((low[-1] + high[0]) / 2),
        separation=float(high.mean() - low.mean()) / max(spread, 1e-12),
    )
