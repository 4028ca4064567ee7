"""Distillation: a network kept as it is, and how far a student's prediction is from its."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def divergence(student: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target || softmax(student / T)) per example, in nats: float32 (B,).

    Summed over the classes; no factor T^2.

    Args:
        student: logits (B, C).
        target: probabilities (B, C); gradients flow through ``student`` only if it is detached.
        temperature: T.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(log_student, target.float(), reduction="none").sum(1)


def softened(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax(logits / T): float32 (B, C)."""
    return F.softmax(logits.float() / temperature, dim=1)
