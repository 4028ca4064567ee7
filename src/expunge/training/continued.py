"""How to train a network on: as it was first trained, or by its kind where nobody knows how that was."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.errors import Diverged, InvalidInput
from expunge.training.batchnorm import batch_norms
from expunge.training.cost import Meter
from expunge.training.loop import accuracy, cross_entropy, fit
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, PartialRecipe, Recipe, rate_known

_RATES = {"sgd": (0.1, 0.03, 0.01, 0.003, 0.001), "adamw": (2e-3, 5e-4, 1e-4, 3e-5)}
_USUAL = {"sgd": Optimiser().lr, "adam": 1e-3, "adamw": 1e-3}
"""Learning rates to train with where nobody says, and nothing can be tried."""
_OF_SGD = 0.01
"""Learning rate from which an optimiser that nobody names is taken for SGD: Adam is not run at so much."""
_DECAY = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.01}
_BATCH = 64
_AS_FIRST = "as in the first training"
_STEPS = 12
"""Of a trial of one rate."""
_PROBE = 256
"""Examples on which its accuracy is measured."""
_STAYS = 0.8
"""Share of its accuracy that a network must keep for a rate to be taken."""


@dataclass(frozen=True, kw_only=True)
class Continued:
    """How a network is trained on.

    Args:
        optimiser: with its learning rate.
        batch_size: examples a step.
        augment: train on augmented inputs; not where augmentation changes nothing.
        why: where that comes from, as part of a sentence.
    """

    optimiser: Optimiser
    batch_size: int
    augment: bool
    why: str

    @property
    def follows(self) -> bool:
        """Whether that is the first training."""
        return self.why == _AS_FIRST


def usual_optimiser(model: nn.Module) -> str:
    """Return the name of the optimiser that networks of this kind are trained with."""
    return "sgd" if batch_norms(model) else "adamw"


def completed(recipe: Recipe, model: nn.Module) -> Recipe:
    """Return ``recipe`` with optimiser and batch size that are usual for the kind of network, where nobody said."""
    if not isinstance(recipe, PartialRecipe):
        return recipe
    given = {name.partition(".")[2] for name in recipe.stated}
    first = recipe.optimiser
    name = first.name
    if "name" not in given:
        name = "sgd" if "lr" in given and first.lr >= _OF_SGD else usual_optimiser(model)
    return replace(
        recipe,
        batch_size=recipe.batch_size if "batch_size" in recipe.stated else _BATCH,
        optimiser=replace(
            first,
            name=name,
            lr=first.lr if "lr" in given else _USUAL[name],
            weight_decay=first.weight_decay if "weight_decay" in given else _DECAY[name],
        ),
    )


def continued(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    recipe: Recipe | None,
    *,
    optimiser: str | None,
    lr: float | None,
    momentum: float,
    weight_decay: float | None,
    batch_size: int | None,
    augment: bool | None,
    generator: torch.Generator,
    meter: Meter,
) -> Continued:
    """Return how to train ``model`` on; what is given comes first, then ``recipe``, then the network's kind.

    Where neither a recipe nor anything else says the rate, the highest of a few is taken at which a copy keeps four
    fifths of its accuracy on a batch of ``examples`` over a dozen steps, or the lowest rate if it keeps that at none.

    Args:
        model: in place for ``numerics``; left as it is.
        examples: retained ones, with labels that are mostly right.
        numerics: where to compute.
        recipe: of the first training, if it is known.
        optimiser: name, if it is given.
        lr: learning rate, if it is given.
        momentum: of "sgd", where no recipe says otherwise.
        weight_decay: if it is given.
        batch_size: if it is given.
        augment: if it is given.
        generator: draws the batches of the trial.
        meter: counts its sample gradients.

    Raises:
        InvalidInput: everything is frozen, or a value outside its range.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidInput(
            "every parameter is frozen, so nothing can be trained; unfreeze the last layers at least"
        )
    recipe = None if recipe is None else completed(recipe, model)
    if recipe is not None and optimiser in (None, recipe.optimiser.name):
        first, known = recipe.optimiser, rate_known(recipe)
    else:
        name = optimiser or usual_optimiser(model)
        first, known = Optimiser(name=name, momentum=momentum, weight_decay=_DECAY[name]), False
    if weight_decay is not None:
        first = replace(first, weight_decay=weight_decay)
    size = batch_size or (_BATCH if recipe is None else recipe.batch_size)
    if known:
        rate, why = lr or first.lr, _AS_FIRST
    elif lr is not None:
        rate, why = lr, "as was asked for"
    else:
        tried = _RATES["adamw" if first.name == "adam" else first.name]
        made = [replace(first, lr=each) for each in tried]
        rate = _highest(model, examples, numerics, made, size, generator, meter)
        why = "by the kind of the network, at a rate that was tried on retained examples"
    augmented = recipe is not None and recipe.augment if augment is None else augment
    return Continued(
        optimiser=replace(first, lr=rate),
        batch_size=size,
        augment=augmented and examples.augments,
        why=why,
    )


def _highest(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    optimisers: list[Optimiser],
    size: int,
    generator: torch.Generator,
    meter: Meter,
) -> float:
    size = min(size, max(2, len(examples) // 2))
    batches = [examples.sample(size, generator) for _ in range(_STEPS)]
    probe = examples.select(torch.randperm(len(examples), generator=generator)[:_PROBE])
    before = accuracy(model, probe, numerics)
    for optimiser in optimisers:
        trial = copy.deepcopy(model)
        try:
            fit(trial, [batches], cross_entropy, optimiser.over(trial), numerics, meter)
        except Diverged:
            continue
        if accuracy(trial, probe, numerics) >= _STAYS * before:
            return optimiser.lr
    return optimisers[-1].lr
