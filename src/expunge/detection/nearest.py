"""The training examples that a network takes for the most like given ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_AT_ONCE = 2**24
"""Similarities that are held at a time."""


def nearest(features: Tensor, rows: Tensor, among: Tensor, count: int = 4) -> Tensor:
    """Return int64 (R, ``count``), on the CPU: for each of ``rows`` the positions with the largest cosine.

    Args:
        features: float (N, D).
        rows: int64 (R,), positions.
        among: bool (N,), the examples that may be named; -1 stands where there are fewer than ``count``.
        count: neighbours of each.
    """
    candidates = among.nonzero().flatten()
    found = torch.full((len(rows), count), -1)
    kept = min(count, len(candidates))
    if not kept or not len(rows):
        return found
    unit = F.normalize(features.float() - features.float().mean(0), dim=1)
    theirs = unit[candidates.to(unit.device)]
    step = max(1, _AT_ONCE // len(candidates))
    for start in range(0, len(rows), step):
        part = rows[start : start + step].to(unit.device)
        # a row is not its own neighbour, and the copy of itself is
        same = part[:, None] == candidates.to(unit.device)
        alike = (unit[part] @ theirs.T).masked_fill(same, -2.0).topk(kept, dim=1)
        chosen = candidates[alike.indices.cpu()]
        found[start : start + step, :kept] = chosen.masked_fill(alike.values.cpu() < -1.5, -1)
    return found
