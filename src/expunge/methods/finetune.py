"""Training on without the forget set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Needs, Reference, Request, positive
from expunge.methods.gradient import GradientMethod
from expunge.training.loop import Objective, cross_entropy
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class FineTune(GradientMethod):
    """Train on with the retain set only and hope that the rest fades (catastrophic forgetting).

    min_theta  mean over D_r of CE(f_theta(x), y).

    Args:
        epochs: passes over the retain set.
        schedule: of the learning rate.

    Departures: the last model is returned, not the best one on test data.
    """

    name = "finetune"
    needs = Needs.RETAIN
    reference = Reference(
        "Redirection for Erasing Memory (baseline CF)", "Schoepf et al.", 2025, "arXiv 2505.17730"
    )

    epochs: int = 10
    schedule: str = "warmup_decay"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(epochs=self.epochs)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes over the retain set."""
        return float(self.epochs)

    def objective(self, request: Request) -> Objective:
        """Return the loss of a batch of the retain set."""
        return cross_entropy

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        objective = self.objective(request)
        self.fit(model, request.retain, objective, request, epochs=self.epochs, schedule=self.schedule)
        return model
