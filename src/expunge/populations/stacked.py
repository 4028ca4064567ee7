"""Several small models trained at once, their parameters stacked along a new first dimension."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from expunge.data.examples import Batch, Examples, batch_count
from expunge.errors import InvalidInput
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.loop import Loss, fit
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe
from expunge.training.schedule import schedule_named

STACKABLE = ("mlp", "resnet9")
"""Architectures that draw nothing at random in their forward pass and are known to give the same stacked."""
WORK = 4_000_000
"""Parameters times batch size above which one model alone keeps a core busy: there a stack is not faster."""
LARGEST = 16
"""Models in one stack: more gain little, and an interruption loses the stacks in flight."""


def stackable(recipe: Recipe, model: nn.Module) -> bool:
    """Whether ``model``, built by ``recipe``, gives the same in a stack as alone."""
    # vmap loses the update of running statistics that are a slice of a longer buffer, as with spare units.
    spare = getattr(model, "settings", {}).get("spare", 0)
    return recipe.model in STACKABLE and not (recipe.codes or recipe.example_tied or spare)


def worth_stacking(recipe: Recipe, model: nn.Module, numerics: Numerics) -> bool:
    """Whether models of ``recipe`` train faster together than one after the other.

    Small ones do: their steps cost little more than the calls they are made of. On digits in batches of 128
    an MLP of 64 hidden units trains 2.3 times as fast in stacks of 16, one of 256 units 1.5 times, a
    ResNet-9 of width 8 1.7 times and one of width 32 not at all (one core; an accelerator keeps gaining
    longer).
    """
    if not stackable(recipe, model) or numerics.dtype != "float32":
        return False
    work = recipe.batch_size * sum(parameter.numel() for parameter in model.parameters())
    return numerics.device != "cpu" or work <= WORK


def train_together(
    recipe: Recipe,
    models: Sequence[nn.Module],
    parts: Sequence[Examples],
    seeds: Sequence[int],
    numerics: Numerics,
    meter: Meter,
) -> None:
    """Train each of ``models`` in place on its own part, as ``recipe.train`` with its own seed does.

    Each model sees its own examples in its own order, and batch normalisation keeps its own statistics. The
    weights equal those of :meth:`Recipe.train` but for the rounding of sums, which the matrix library takes
    in another order; training amplifies it from step to step.

    Args:
        recipe: of an architecture in :data:`STACKABLE`, without preparation.
        models: fresh ones of that architecture, without spare units, all in one mode.
        parts: training examples of each model, equally many.
        seeds: of the order of each.
        numerics: with float32.
        meter: counts sample gradients.

    Raises:
        InvalidInput: models that do not stack.
        Diverged: the loss of one of the models is not finite.
    """
    if not all(stackable(recipe, model) for model in models):
        raise InvalidInput(
            f"{recipe.model} with these settings does not train in a stack (those that do: {', '.join(STACKABLE)}, "
            "without preparation and without spare units); use Recipe.train for each model"
        )
    stack = _Stack(models)
    stack.to(numerics.device)
    orders = [generator(seed, "order") for seed in seeds]
    fit(
        stack,
        (_epoch(recipe, parts, orders) for _ in range(recipe.epochs)),
        _summed_cross_entropy,
        recipe.optimiser.over(stack),
        numerics,
        meter,
        schedule=schedule_named(recipe.schedule),
        steps=recipe.epochs * batch_count(len(parts[0]), recipe.batch_size),
    )
    stack.unstack(models)


class _Stack(nn.Module):
    """Stacked parameters and buffers: inputs (M, B, ...) to logits (M, B, n_classes)."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, self._buffers_of = stack_module_state(list(models))
        self._names = list(parameters)
        self.stacked = nn.ParameterList(parameters.values())
        # In a list, so that its parameters, which are on no device, are not this module's.
        self._template = [copy.deepcopy(models[0]).to("meta").train()]

    def forward(self, x: Tensor) -> Tensor:
        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._template[0], (parameters, buffers), (x,))
            return logits

        self._buffers_of = {name: tensor.to(x.device) for name, tensor in self._buffers_of.items()}
        # Running statistics are updated in place, each model's in its own row.
        logits: Tensor = vmap(one)(dict(zip(self._names, self.stacked, strict=True)), self._buffers_of, x)
        return logits

    @torch.no_grad()
    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Copy each row into its model."""
        tensors = {**dict(zip(self._names, self.stacked, strict=True)), **self._buffers_of}
        for number, model in enumerate(models):
            model.load_state_dict({name: tensor[number] for name, tensor in tensors.items()})


def _epoch(recipe: Recipe, parts: Sequence[Examples], orders: Sequence[torch.Generator]) -> Iterator[Batch]:
    streams = (
        part.batches(recipe.batch_size, order, augment=recipe.augment)
        for part, order in zip(parts, orders, strict=True)
    )
    for batches in zip(*streams, strict=True):
        yield Batch(
            torch.stack([batch.x for batch in batches]),
            torch.stack([batch.y for batch in batches]),
            torch.stack([batch.index for batch in batches]),
        )


def _summed_cross_entropy(model: nn.Module, batch: Batch) -> Loss:
    # Summed over the models: each gets the gradient of its own mean.
    losses = F.cross_entropy(model(batch.x).flatten(0, 1).float(), batch.y.flatten(), reduction="none")
    return Loss(losses.view_as(batch.y).mean(1).sum(), batch.y.numel())
