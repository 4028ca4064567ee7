"""The base of methods that shrink the parameters which matter to the forget set, in one pass."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from expunge.data.examples import Examples
from expunge.methods.base import Method, Needs, Request, positive, searched
from expunge.methods.importance import Importances, dampen
from expunge.training.loop import Progress, silent
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Dampening(Method):
    """Shrink the parameters that matter far more to the forget set than to the training set.

    w <- w * min(lambda I_D / I_F, 1)  where  I_F > alpha I_D, else w stays.

    I_D, I_F: the importances on the training set and on the forget set, of which a subclass says what they
    are. No step of training is made.

    Symbols: alpha -> ``alpha``, lambda -> ``dampening``.

    Args:
        alpha: a parameter is selected if its importance to the forget set is above this many times that
            to the training set.
        dampening: a selected parameter keeps this times the ratio of its importances; 1 at most.

    Raises:
        InvalidInput: a setting that is not positive; an empty forget set; no parameter requires a gradient.
    """

    needs = Needs.FORGET | Needs.RETAIN
    touches = "parameters important to the forget set"

    alpha: float = searched(10.0, 1.0, 100.0, log=True)
    dampening: float = searched(1.0, 0.1, 5.0, log=True)

    def __post_init__(self) -> None:
        positive(alpha=self.alpha, dampening=self.dampening)

    @abstractmethod
    def importances(
        self, model: nn.Module, examples: Examples, request: Request, progress: Progress
    ) -> Importances:
        """Return how much each parameter of ``model`` matters for ``examples``."""

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
