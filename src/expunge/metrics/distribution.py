"""Class probabilities of two models on the same examples."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from expunge.errors import InvalidInput


def log_probabilities(logits: Tensor) -> Tensor:
    """Log softmax(logits) by row: float64 (N, C).

    Raises:
        InvalidInput: not (N, C) with at least one row and two classes, or a logit that is not finite.
    """
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise InvalidInput(
            "logits (N, C) of at least one example and two classes are expected, got shape "
            f"{tuple(logits.shape)}; check that the set is not empty"
        )
    broken = ~logits.isfinite().all(1)
    if bool(broken.any()):
        raise InvalidInput(
            f"the logits of {int(broken.sum())} of {len(logits)} examples hold NaN or inf; the model has "
            "diverged, lower its learning rate"
        )
    return F.log_softmax(logits.double(), dim=1)


def paired_log_probabilities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`log_probabilities` of two models' logits (N, C) on the same examples.

    Raises:
        InvalidInput: the shapes differ, or one of the two cannot be used.
    """
    if first.shape != second.shape:
        raise InvalidInput(
            "logits of two models on the same examples are expected, got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    return log_probabilities(first), log_probabilities(second)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum_c p_c (log p_c - log q_c) by row, in nats: float64 (N,)."""
    # p log p is 0 where p is 0, also where log q is -inf there
    return (log_p.exp() * (log_p - log_q)).where(log_p.exp() > 0, 0.0).sum(1)
