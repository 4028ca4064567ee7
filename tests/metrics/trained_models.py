from __future__ import annotations

from typing import NamedTuple

from torch import nn

from expunge.metrics.base import Evaluated
from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)
RECIPE = Recipe(
    model="mlp",
    model_settings={"hidden": 24, "activation": "relu"},
    epochs=12,
    batch_size=16,
    optimiser=Optimiser(lr=0.02, weight_decay=0.0),
    schedule="constant",
    augment=False,
)


class Trained(NamedTuple):
    """A problem with the model before unlearning and the one retrained without the forget set."""

    problem: Problem
    original: nn.Module
    retrained: nn.Module

    def of(self, model: nn.Module) -> Evaluated:
        others = {
            "original": Evaluated(self.original, self.problem, CPU),
            "retrained": Evaluated(self.retrained, self.problem, CPU),
        }
        return Evaluated(model, self.problem, CPU, others)

    def alone(self, model: nn.Module) -> Evaluated:
        return Evaluated(model, self.problem, CPU)


def trained(problem: Problem) -> Trained:
    models = []
    for examples in (problem.split.train, problem.split.retain):
        model = RECIPE.build(problem.shape, problem.n_classes, generator(0, "model"))
        models.append(RECIPE.train(model, examples, 0, CPU, Meter()).eval())
    return Trained(problem, *models)
