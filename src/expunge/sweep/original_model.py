"""Trains the original model, which every method starts from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.training.cost import Meter
from expunge.training.difficulty import LossRecorder
from expunge.training.launch import launch
from expunge.training.loop import Progress, cross_entropy, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe
from expunge.training.team import current_team


@dataclass(frozen=True)
class OriginalModel:
    """An original model.

    Args:
        model: as it was trained.
        difficulty: float32 (N,), mean training loss of every example in nats; ``None`` after example-tied dropout,
            whose objective does not record it.
        seconds: wall time of the training.
    """

    model: nn.Module
    difficulty: Tensor | None
    seconds: float


def train_original(
    recipe: Recipe, problem: Problem, seed: int, numerics: Numerics, progress: Progress = silent
) -> OriginalModel:
    """Train a fresh model on the training set of ``problem``, given labels and corruption included.

    Several devices share it, in a process for each and without progress.

    Raises:
        Diverged: the training led to NaN.
    """
    if numerics.devices.several and current_team() is None:
        return launch(numerics, train_original, recipe, problem, seed, numerics)
    train = problem.split.train
    model = recipe.build(problem.shape, problem.n_classes, generator(seed, "initialisation"))
    recorder = LossRecorder(len(train), numerics.device) if recipe.example_tied is None else None
    with Meter(numerics.device) as meter:
        recipe.train(
            model, train, seed, numerics, meter, progress=progress, objective=recorder or cross_entropy
        )
    return OriginalModel(model, recorder.means() if recorder else None, meter.seconds)
