"""Small networks that have learned digits with corruption, of which a part is known."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from expunge.data.digits import load_digits
from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.testing.method_contract import Case
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

NUMERICS = Numerics(channels_last=False)
EPOCHS = {0.0: 30, 1.0: 15}
"""Passes after which labels at random (0) and a poison patch (1) have been learned."""


def _problem(regularity: float, discovery: float) -> Problem:
    task = CorruptionTask(regularity=regularity, discovery=discovery, n_corrupted=100, patch=2)
    return task.build(load_digits())


def _recipe(regularity: float) -> Recipe:
    return Recipe(
        model="resnet9",
        model_settings={"width": 16},
        epochs=EPOCHS[regularity],
        batch_size=64,
        optimiser=Optimiser(lr=0.1),
        augment=False,
    )


@lru_cache
def _trained(regularity: float) -> nn.Module:
    # The first training does not depend on what is discovered.
    problem, recipe = _problem(regularity, 1.0), _recipe(regularity)
    model = recipe.build(problem.shape, problem.n_classes, generator(0, "initialisation"))
    recipe.train(model, problem.split.train, 0, NUMERICS, Meter())
    model.zero_grad()
    return model


def corrupted_digits(regularity: float, discovery: float) -> Case:
    """1,437 digits of which 100 are corrupted, and a network that was trained on them."""
    problem = _problem(regularity, discovery)
    return Case(_trained(regularity), problem.split, problem.truth, _recipe(regularity), NUMERICS)
