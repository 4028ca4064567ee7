"""Training anew with every label corrected: an oracle."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Needs, Request
from expunge.methods.retrain import Retrain, train_anew


@dataclass(frozen=True, kw_only=True)
class RetrainCorrected(Retrain):
    """Oracle: train a new model on all data with the true labels, undiscovered corruption included.

    The ceiling of the map. Triggers stay in the images; only labels are corrected.
    """

    name = "retrain_corrected"
    needs = Needs.FORGET | Needs.RETAIN | Needs.RECIPE | Needs.TRUTH
    reference = None

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Reset ``model`` and train it."""
        return train_anew(model, request.train.relabel(request.truth.true_labels), request)
