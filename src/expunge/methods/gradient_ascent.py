"""Ascent on the forget set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Needs, Reference, Request, chance_threshold, positive
from expunge.methods.gradient import GradientMethod
from expunge.methods.removal import CachedLoss, RaiseLoss, ReferenceLoss, remove


@dataclass(frozen=True, kw_only=True)
class GradientAscent(GradientMethod):
    """Raise the loss on the forget set until it is no longer predicted.

    max_theta  mean over D_f of CE(f_theta(x), y), one pass at a time, while accuracy on D_f > threshold.

    Args:
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

    def loss(self, reference: ReferenceLoss) -> RaiseLoss:
        """Return what is minimised; ``reference`` is the model at the start."""
        return RaiseLoss("ascent", reference, batch_statistics=True)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        forget = request.forget
        passes = remove(
            self,
            model,
            forget,
            self.loss(CachedLoss.of(model, forget, request)),
            request,
            optimizer=self.optimiser_over(model),
            order=request.generator("order"),
            threshold=chance_threshold(request.n_classes) if self.threshold is None else self.threshold,
            max_passes=self.passes,
        )
        request.meter.write(passes=passes)
        request.progress(1.0)
        return model
