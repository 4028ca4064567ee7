"""Selective synaptic dampening without labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.data.examples import Examples
from expunge.methods.base import Reference, Request
from expunge.methods.importance import Importances, label_free_importances
from expunge.methods.ssd import SSD
from expunge.training.loop import Progress


@dataclass(frozen=True, kw_only=True)
class LFSSD(SSD):
    """Shrink the parameters to which the outputs on the forget set are far more sensitive than elsewhere.

    w <- w * min(lambda I_D / I_F, 1)  where  I_F > alpha I_D, else w stays.

    I_D, I_F: mean over the mini-batches of the training set and of the forget set of
    |gradient of mean_i ||f(x_i)||_2^2|, f the logits, evaluation mode. No label is read and nothing is random.

    Symbols: alpha -> ``alpha``, lambda -> ``dampening``.

    Args:
        alpha: a parameter is selected if its importance to the forget set is above this many times that
            to the training set. The ratios here are of gradients, not of their squares as in "ssd".
        squared: as above; if false, take the gradient of the norm itself, mean_i ||f(x_i)||_2, as "potion" does.

    Raises:
        InvalidInput: a setting that is not positive; an empty forget set; no parameter requires a gradient.

    Departures: importances are taken without augmentation, in the order of the data; frozen parameters are
    left as they are. Reconstructed: alpha, lambda and the batch size, which are those of "ssd". The paper's
    summary speaks of the norm and its sensitivity of the squared norm; the latter is the default.
    """

    name = "lfssd"
    reference = Reference(
        "Loss-Free Machine Unlearning",
        "Foster, Schoepf, Brintrup",
        2024,
        "ICLR 2024 Tiny Papers; arXiv 2402.19308",
    )

    squared: bool = True

    def importances(
        self, model: nn.Module, examples: Examples, request: Request, progress: Progress
    ) -> Importances:
        """Return those of the outputs' norm, which reads no label."""
        return label_free_importances(
            model, examples, request.numerics, request.meter,
            batch_size=self.batch_size, squared=self.squared, progress=progress,
        )  # fmt: skip
