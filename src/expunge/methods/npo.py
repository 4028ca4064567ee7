"""Negative preference optimisation on the forget set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.removal import ascend


@dataclass(frozen=True, kw_only=True)
class NPO(GradientMethod):
    """Raise the loss on the forget set above a reference's, with a force that fades once it is.

    min_theta  mean over D_f of -(2 / beta) log sigmoid(beta (ce_theta - ce_ref)), one pass at a time, while
    accuracy on D_f > threshold. ce is the cross-entropy of the given label; ref is the model at the start.

    Symbols: beta -> ``beta``.

    Args:
        lr: learning rate.
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: L2 on every parameter.
        augment: train on augmented inputs.
        beta: inverse temperature.
        passes: at most this many passes over the forget set.
        threshold: accuracy on the given labels at which to stop; by default twice chance.

    Departures: the reference is cached without augmentation and normalises by running statistics (published:
    by those of the batch); no selection on retain data.
    """

    name = "npo"
    needs = Needs.FORGET
    reference = Reference(
        "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        "Zhang, Lin, Bai, Mei",
        2024,
        "arXiv 2404.05868; adapted to classifiers in arXiv 2505.17730",
    )

    beta: float = searched(1.0, 0.1, 5.0, log=True)
    passes: int = 10
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(beta=self.beta, passes=self.passes)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        return ascend(
            self, "npo", model, request, passes=self.passes, threshold=self.threshold, beta=self.beta
        )
