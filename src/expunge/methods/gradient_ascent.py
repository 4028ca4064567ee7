"""Ascent on the forget set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Needs, Reference, Request, positive
from expunge.methods.gradient import GradientMethod
from expunge.methods.removal import ascend


@dataclass(frozen=True, kw_only=True)
class GradientAscent(GradientMethod):
    """Raise the loss on the forget set until it is no longer predicted.

    max_theta  mean over D_f of CE(f_theta(x), y), one pass at a time, while accuracy on D_f > threshold.

    Args:
        lr: learning rate.
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: L2 on every parameter.
        augment: train on augmented inputs.
        passes: at most this many passes over the forget set.
        threshold: accuracy on the given labels at which to stop; by default twice chance.

    Departures: the number of passes is bounded (the published loop is not), and the model at the stop is returned
    (published: the pass that scores best on retain data, which this method then would need).
    """

    name = "gradient_ascent"
    needs = Needs.FORGET
    reference = Reference(
        "Redirection for Erasing Memory (baseline Ascent)", "Schoepf et al.", 2025, "arXiv 2505.17730"
    )

    passes: int = 100
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(passes=self.passes)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        return ascend(self, "ascent", model, request, passes=self.passes, threshold=self.threshold)
