"""Selective synaptic dampening."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.data.examples import Examples
from expunge.methods.base import Method, Needs, Reference, Request, positive, searched
from expunge.methods.importance import Importances, dampen, fisher_importances
from expunge.training.loop import Progress, silent
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SSD(Method):
    """Shrink the parameters that matter far more to the forget set than to the training set.

    w <- w * min(lambda I_D / I_F, 1)  where  I_F > alpha I_D, else w stays.

    I_D, I_F: mean over the mini-batches of the training set and of the forget set of
    (gradient of the batch's mean cross-entropy, given labels)^2, evaluation mode. No step of training is
    made and nothing is random.

    Symbols: alpha -> ``alpha``, lambda -> ``dampening``.

    Args:
        alpha: a parameter is selected if its importance to the forget set is above this many times that
            to the training set.
        dampening: a selected parameter keeps this times the ratio of its importances; 1 at most.
        batch_size: examples a mini-batch of the importances, which depend on it.

    Raises:
        InvalidInput: a setting that is not positive; an empty forget set; no parameter requires a gradient.

    Source: the paper, whose values for ResNets on CIFAR are the defaults.

    Departures: importances are taken without augmentation, in the order of the data; frozen parameters are
    left as they are. Reconstructed: the batch size.
    """

    name = "ssd"
    needs = Needs.FORGET | Needs.RETAIN
    touches = "parameters important to the forget set"
    reference = Reference(
        "Fast Machine Unlearning without Retraining through Selective Synaptic Dampening",
        "Foster, Schoepf, Brintrup",
        2024,
        "AAAI 2024; arXiv 2308.07707",
    )

    alpha: float = searched(10.0, 1.0, 100.0, log=True)
    dampening: float = searched(1.0, 0.1, 5.0, log=True)
    batch_size: int = 128

    def __post_init__(self) -> None:
        positive(alpha=self.alpha, dampening=self.dampening, batch_size=self.batch_size)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """One pass over the training set and one over the forget set."""
        return 1.0

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Dampen in place and return ``model``."""
        small = self.importances(model, request.forget, request, silent)
        full = self.importances(model, request.train, request, request.progress)
        share = dampen(model, small, full, threshold=self.alpha, strength=self.dampening)
        request.meter.write(share=share)
        request.progress(1.0)
        return model

    def importances(
        self, model: nn.Module, examples: Examples, request: Request, progress: Progress
    ) -> Importances:
        """Return how much each parameter of ``model`` matters for ``examples``."""
        return fisher_importances(
            model, examples, request.numerics, request.meter, batch_size=self.batch_size, progress=progress
        )
