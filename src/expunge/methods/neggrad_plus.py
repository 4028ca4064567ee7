"""Ascent on the forget set, held back by descent on the retain set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, searched
from expunge.methods.finetune import FineTune
from expunge.training.batchnorm import forget_statistics
from expunge.training.loop import Loss, Objective
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class NegGradPlus(FineTune):
    """Lower the loss on the retain set and raise it on the forget set in every step.

    min_theta  beta mean over a batch of D_r of CE(f_theta(x), y) - (1 - beta) mean over a batch of D_f of the same.

    Args:
        batch_size: retained examples a step, and forgotten ones where there are as many.
        beta: weight of the retain set, in (0, 1).
        epochs: passes over the retain set; the forget set is passed over as often as that takes.

    Raises:
        InvalidInput: a setting outside its range.

    Source: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, section 4 (baseline NegGrad+), who
    search beta from 0.95 to 0.9999.

    Departures: a forget batch of one example is normalised by running statistics. The other settings are those of the
    REM benchmark; the paper gives no single set. The ascent has no bound: at a small beta the loss diverges.
    """

    name = "neggrad_plus"
    needs = Needs.FORGET | Needs.RETAIN
    reference = Reference(
        "Towards Unbounded Machine Unlearning (baseline NegGrad+)",
        "Kurmanji, Triantafillou, Hayes, Triantafillou",
        2023,
        "NeurIPS 2023, arXiv 2302.09880",
    )

    beta: float = searched(0.999, 0.95, 0.9999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < 1:
            raise InvalidInput(
                f"beta must lie in (0, 1), got {self.beta}; at 1 this would be 'finetune', at 0 "
                "'gradient_ascent'"
            )

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Every step reads a retained and a forgotten batch."""
        return 2.0 * self.epochs

    def objective(self, request: Request) -> Objective:
        """Return the weighted difference of a batch's loss and that of as large a one of the forget set."""
        beside = self._endless(request)

        def both(model: nn.Module, batch: Batch) -> Loss:
            other = next(beside)
            kept = F.cross_entropy(model(batch.x).float(), batch.y)
            with forget_statistics(model, other):
                logits = model(request.numerics.place_inputs(other.x))
            lost = F.cross_entropy(logits.float(), other.y)
            return Loss(self.beta * kept - (1 - self.beta) * lost, len(batch) + len(other))

        return both

    def _endless(self, request: Request) -> Iterator[Batch]:
        """Shuffled passes over the forget set, one after the other, without end."""
        forget, order = request.forget, request.generator("forget order")
        while True:
            yield from self.batches(forget, order)
