"""A network kept as it is, for others to be compared with or taught by."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from expunge.training.numerics import Numerics


def frozen(model: nn.Module, numerics: Numerics) -> Callable[[Tensor], Tensor]:
    """Return a function x -> logits float32 of a copy of ``model`` in evaluation mode, without gradients."""
    teacher = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(x: Tensor) -> Tensor:
        with numerics.autocast():
            logits: Tensor = teacher(x)
        return logits.float()

    return forward
