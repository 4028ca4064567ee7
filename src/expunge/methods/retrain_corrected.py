"""Training anew with every label corrected: an oracle."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Method, Needs, Request
from expunge.training.initialisation import reinitialise
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class RetrainCorrected(Method):
    """Oracle: train a new model on all data with the true labels, undiscovered corruption included.

    The ceiling of the map. Triggers stay in the images; only labels are corrected.
    """

    name = "retrain_corrected"
    needs = Needs.FORGET | Needs.RETAIN | Needs.RECIPE | Needs.TRUTH
    touches = "all parameters, from scratch"

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Those of the recipe."""
        return float(recipe.epochs) if recipe else Recipe().epochs

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Reset ``model`` and train it."""
        reinitialise(model, request.generator("initialisation"))
        corrected = request.train.relabel(request.truth.true_labels)
        return request.recipe.train(
            model, corrected, request.seed, request.numerics, request.meter, request.progress
        )
