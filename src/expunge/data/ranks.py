"""The place of every example among those of its class."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_in_class(labels: Tensor) -> Tensor:
    """Return int64 (N,): how many examples of the same label come before each, 0 for the first of a class.

    Args:
        labels: integers (N,); the result is on the same device.
    """
    rank = torch.empty_like(labels, dtype=torch.int64)
    for label in torch.unique(labels):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()), device=labels.device)
    return rank
