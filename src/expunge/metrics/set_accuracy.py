"""Accuracy on the three sets that gaps and composites are made of: forget, retain and test."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated
from expunge.metrics.held_out import unseen_like_retain


class SetAccuracies(NamedTuple):
    """Accuracies in [0, 1].

    Attributes:
        forget: a(theta, D_f), stored labels.
        retain: a(theta, D_r), stored labels.
        test: a(theta, D_t), without the images of a forgotten class or sub-class.
    """

    forget: float
    retain: float
    test: float


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is at the label; a row with NaN counts as wrong.

    Args:
        logits: float (N, C).
        labels: int64 (N,).

    Raises:
        InvalidInput: no row, or not one label for each.
    """
    if len(logits) == 0 or labels.shape != logits.shape[:1]:
        raise InvalidInput(
            "accuracy needs at least one row of logits and one label for each, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    right = (logits.argmax(1) == labels) & ~logits.isnan().any(1)
    return float(right.double().mean())


def set_accuracies(evaluated: Evaluated) -> SetAccuracies:
    """Return the accuracies of a model on D_f, D_r and D_t.

    Raises:
        NotDefined: one of the sets is empty.
    """
    return SetAccuracies(
        accuracy(*evaluated.forget), accuracy(*evaluated.retain), accuracy(*unseen_like_retain(evaluated))
    )
