"""What a trained network says of every label after it was shaken loose and has learned again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import Diverged
from expunge.methods.base import Needs, Request
from expunge.methods.relearn import Relearn
from expunge.methods.relearning import Run
from expunge.tasks.base import Split
from expunge.training.batchnorm import recalibrate
from expunge.training.continued import continued
from expunge.training.cost import Meter
from expunge.training.loop import Progress, predict, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_ATTEMPTS = 3


@dataclass(frozen=True)
class Beliefs:
    """What is believed of N training examples.

    Args:
        probabilities: float32 (N, C), on the CPU.
        neighbours: bool (N,), unlisted examples with the features of known ones, which the network, that has not
            learned them, gives another label.
        neighboured: bool (N,), the known ones of the labels that have such neighbours.
        good: share of ``neighbours`` that is expected to be good.
        model: the network that believes it.
        cost: of getting there.
        notes: what happened on the way, for the user.
    """

    probabilities: Tensor
    neighbours: Tensor
    neighboured: Tensor
    good: float
    model: nn.Module
    cost: Meter
    notes: tuple[str, ...]


def relearned(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    *,
    known: Tensor | None = None,
    recipe: Recipe | None = None,
    start: Mapping[str, Tensor] | None = None,
    settings: Relearn | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Beliefs:
    """Return what a copy of ``model`` says after relearning: what it had memorised has gone.

    Shrinking and passes are those of :class:`expunge.methods.relearn.Relearn`. All labels count as trusted, those of
    ``known`` too: what is learned of them must be what is learned of the unlisted wrong labels, or the share of them
    above a cut would not measure its recall. Known examples of a label that has neighbours in the features are held out
    with these until the neighbours are judged.

    Args:
        model: as it was trained; it stays as it is.
        examples: what it was trained on, on the device of ``numerics``.
        numerics: where to compute.
        known: bool (N,), examples known to be bad.
        recipe: how it was first trained, if that is known.
        start: weights that training began from, or an earlier checkpoint.
        settings: of relearning.
        seed: of everything random.
        progress: called with the share of the work that is done.

    Raises:
        Diverged: training led to NaN, or the network did not come back.
    """
    settings = settings or Relearn()
    listed = torch.zeros(len(examples), dtype=torch.bool) if known is None else known.cpu()
    request = Request(
        Split(examples, listed.nonzero().flatten()), seed=seed, numerics=numerics, recipe=recipe, start=start,
        progress=progress,
    ).grant("find", settings.needs, settings.uses & ~Needs.NOTHING)  # fmt: skip
    place = numerics.place(copy.deepcopy(model))
    with request.meter as meter:
        how = continued(
            place, examples, numerics, recipe, optimiser=settings.optimiser, lr=settings.lr,
            momentum=settings.momentum, weight_decay=settings.weight_decay, batch_size=settings.batch_size,
            augment=settings.augment, generator=request.generator("rate"), meter=meter,
        )  # fmt: skip
        for attempt in range(_ATTEMPTS):
            run = _Look(settings, copy.deepcopy(place), request, how, attempt)
            if run.relearn():
                break
        else:
            raise Diverged(
                f"in {_ATTEMPTS} attempts the network did not come back to half of its accuracy; give the optimiser "
                "and rate of the first training (--recipe), or look by cross-validation (--folds 5)"
            )
        recalibrate(run.model, examples, numerics, generator=run.order, augment=how.augment)
        p = predict(run.model, examples, numerics).softmax(1).cpu()
    named = run.flagged & ~run.known
    return Beliefs(p, named.cpu(), run.neighboured.cpu(), run.good, run.model, meter, tuple(request.notes))


class _Look(Run):
    """A run in which a known example is trusted as any other, unless unlisted ones have its features."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.flagged = torch.zeros_like(self.known)
        self.neighboured = torch.zeros_like(self.known)

    def _quarantine(self) -> None:
        if not bool(self.known.any()):
            return
        super()._quarantine()
        self.neighboured = self._known_beside(self.neighbours.found)
        self.quarantined |= self.neighboured

    def _judge(self) -> None:
        super()._judge()
        self.neighboured = self._known_beside(self.flagged)
        self.flagged |= self.neighboured

    def _known_beside(self, others: Tensor) -> Tensor:
        labels = self.train.labels
        return self.known & torch.isin(labels, labels[others])
