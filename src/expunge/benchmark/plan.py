"""A grid laid out as jobs: first trainings, each shared by many cells, then the cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from expunge.data.images import ImageData
from expunge.data.loading import load_data
from expunge.errors import InvalidInput
from expunge.fingerprint import fingerprint
from expunge.methods.base import Method
from expunge.store.record import SCHEMA_VERSION
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe


@dataclass(frozen=True)
class DataChoice:
    """Which data: a name or ``.npz`` path, the folder it lies in, and how many training images of it."""

    name: str
    root: str | None = None
    n_train: int | None = None

    def load(self, device: str) -> ImageData:
        """Return the data set on ``device``; read once a process."""
        return _load(self, device)


@lru_cache(maxsize=2)
def _load(choice: DataChoice, device: str) -> ImageData:
    data = load_data(choice.name, Path(choice.root) if choice.root else None)
    return (data if choice.n_train is None else data.subset(choice.n_train)).to(device)


@dataclass(frozen=True)
class Training:
    """A first model: one for every method and discovery rate of a task."""

    key: str
    data: DataChoice
    task: CorruptionTask
    recipe: Recipe
    seed: int
    numerics: Numerics
    work: float


@dataclass(frozen=True)
class Cell:
    """One method on one task with one seed."""

    key: str
    training: Training
    task: CorruptionTask
    task_key: str
    method: Method
    seed: int
    work: float


@dataclass(frozen=True)
class Plan:
    """All jobs of a grid; the trainings in the order in which cells need them."""

    trainings: tuple[Training, ...]
    cells: tuple[Cell, ...]


def make_plan(
    data: DataChoice,
    tasks: Sequence[CorruptionTask],
    recipe: Recipe,
    methods: Sequence[Method],
    seeds: Sequence[int],
    numerics: Numerics,
) -> Plan:
    """Lay out every combination, each with the content hash under which its record is stored.

    A seed is the seed of the data, of the first training and of the unlearning; each derives its own
    draws from it.

    Raises:
        InvalidInput: nothing to do, a seed or method given twice, a task the data cannot carry, or a model
            that cannot be made for it.
    """
    for kind, given in (
        ("tasks", list(tasks)),
        ("methods", [(method.name, method) for method in methods]),
        ("seeds", list(seeds)),
    ):
        if not given:
            raise InvalidInput(f"the grid has no {kind}; name at least one")
        for position, entry in enumerate(given):
            if entry in given[:position]:
                raise InvalidInput(f"the grid names one of its {kind} twice: {entry}")
    images = data.load(numerics.device)
    for task in tasks:
        task.check(images)
    recipe.build(images.shape, len(images.classes), torch.Generator())  # a misspelt model is found now
    trainings: dict[str, Training] = {}
    cells = []
    for seed in seeds:
        for settings in tasks:
            task = dataclasses.replace(settings, seed=seed)
            problem = build_problem(data, task, numerics.device)
            model_key = fingerprint(problem.training_key, recipe, seed, numerics.dtype)
            training = trainings.setdefault(
                model_key, Training(model_key, data, task, recipe, seed, numerics, float(recipe.epochs))
            )
            for method in methods:
                key = fingerprint(problem.key, model_key, method.name, method, seed, SCHEMA_VERSION)
                work = method.typical_epochs(recipe) + 0.2  # and the evaluation
                cells.append(Cell(key, training, task, problem.key, method, seed, work))
    return Plan(tuple(trainings.values()), tuple(cells))


@lru_cache(maxsize=32)
def build_problem(data: DataChoice, task: CorruptionTask, device: str) -> Problem:
    """Carry out a task on a data set; kept for the cells that follow."""
    return task.build(data.load(device))
