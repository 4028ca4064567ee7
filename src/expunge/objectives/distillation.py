"""Divergence of a student's prediction from a teacher's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def divergence(student: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target || softmax(student / T)) per example, in nats: float32 (B,).

    Summed over the classes; no factor T^2.

    Symbols: T -> ``temperature``.

    Args:
        student: logits (B, C).
        target: probabilities (B, C); gradients flow through ``student`` only if it is detached.
        temperature: divides the student's logits.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    return F.kl_div(log_student, target.float(), reduction="none").sum(1)


def softened(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax(logits / T): float32 (B, C)."""
    return F.softmax(logits.float() / temperature, dim=1)
