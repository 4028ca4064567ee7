"""Negative preference optimisation on the forget set."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.methods.base import Reference, positive, searched
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.removal import RaiseLoss, ReferenceLoss


@dataclass(frozen=True, kw_only=True)
class NPO(GradientAscent):
    """Raise the loss on the forget set above a reference's, with a force that fades once it is.

    min_theta  mean over D_f of -(2 / beta) log sigmoid(beta (ce_theta - ce_ref)), one pass at a time, while
    accuracy on D_f > threshold. ce is the cross-entropy of the given label; ref is the model at the start.

    Args:
        beta: inverse temperature.

    Departures: the reference is cached without augmentation and normalises by running statistics (published:
    by those of the batch); no selection on retain data.
    """

    name = "npo"
    reference = Reference(
        "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        "Zhang, Lin, Bai, Mei",
        2024,
        "arXiv 2404.05868; adapted to classifiers in arXiv 2505.17730",
    )

    beta: float = searched(1.0, 0.1, 5.0, log=True)
    passes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(beta=self.beta)

    def loss(self, reference: ReferenceLoss) -> RaiseLoss:
        """Return what is minimised."""
        return RaiseLoss("npo", reference, self.beta, batch_statistics=True)
