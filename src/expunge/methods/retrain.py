"""Training anew without the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from expunge.data.examples import Examples
from expunge.methods.base import Method, Needs, Reference, Request
from expunge.training.initialisation import reinitialise
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Train a new model on the retain set, by the recipe of the first.

    The reference for removing samples; where corruption is undiscovered it is learned again.

    Parameters that the caller froze are drawn anew and trained with the rest; they come back frozen.

    Departures: the recipe's own learning rate; the published script retrains at the lower unlearning rate.
    The last model is returned, not the best one on test data.
    """

    name = "retrain"
    needs = Needs.RETAIN | Needs.RECIPE
    touches = "all parameters, from scratch"
    trains = True
    reference: ClassVar[Reference | None] = Reference(
        "Redirection for Erasing Memory (baseline EU)", "Schoepf et al.", 2025, "arXiv 2505.17730"
    )

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Those of the recipe."""
        return float(recipe.epochs) if recipe else Recipe().epochs

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Reset ``model`` and train it."""
        return train_anew(model, request.retain, request)


def train_anew(model: nn.Module, examples: Examples, request: Request) -> nn.Module:
    """Draw the parameters of ``model`` anew, train them on ``examples`` by the request's recipe; in place.

    Frozen layers stay, as they did in the first training; a model that is frozen as a whole is trained as a whole.

    Raises:
        InvalidInput: a module owns parameters and cannot reset them.
        Diverged: the loss of an epoch is not finite.
    """
    in_part = any(parameter.requires_grad for parameter in model.parameters())
    reinitialise(model, request.generator("initialisation"), keep_frozen=in_part)
    if not in_part:
        model.requires_grad_(True)
    return request.recipe.train(
        model, examples, request.seed, request.numerics, request.meter, request.progress
    )
