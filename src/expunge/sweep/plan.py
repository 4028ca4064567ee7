"""A grid laid out as jobs: trainings, each shared by many cells, then the cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch

from expunge.data.images import ImageData
from expunge.data.loading import load_data
from expunge.errors import InvalidInput
from expunge.evaluation.evaluate import load_metrics, references_of
from expunge.fingerprint import fingerprint
from expunge.methods.base import Method
from expunge.seeding import derive_seed
from expunge.store.weights import WeightStore
from expunge.tasks.base import Problem, Task
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

KEY_VERSION = 2
"""Enters the key of every cell; raised when the same settings come to mean something else."""
POPULATION = 64
"""Models of each population, as is customary."""
DIFFICULTY, CODES = "expunge.difficulty", "expunge.codes"
"""Names under which an original model's file holds the mean training losses and the mnemonic codes."""


@dataclass(frozen=True)
class DataChoice:
    """Which data.

    Args:
        name: in the table of data sets, or an ``.npz`` path.
        root: the folder it lies in.
        n_train: take a class-balanced part of so many training images.
        imbalance: share of its images that the last class keeps; the first keeps all, see
            :meth:`expunge.data.images.ImageData.imbalanced`. Drawn of the ``n_train``.
        n_unseen: then hold out so many of them, for methods that need data the model has not seen.
    """

    name: str
    root: str | None = None
    n_train: int | None = None
    n_unseen: int | None = None
    imbalance: float | None = None

    @property
    def label(self) -> str:
        """Name of the part that is used, known without reading it."""
        part = "" if self.n_train is None else f"[{self.n_train}]"
        skew = "" if self.imbalance is None else f"~{self.imbalance:.6f}".rstrip("0").rstrip(".")
        return self.name + part + skew + (f"-{self.n_unseen}" if self.n_unseen else "")

    def load(self, device: str) -> ImageData:
        """Return the data set on ``device``; read once a process."""
        return _load(self, device)


@lru_cache(maxsize=2)
def _load(choice: DataChoice, device: str) -> ImageData:
    data = load_data(choice.name, Path(choice.root) if choice.root else None)
    if choice.n_train is not None:
        data = data.subset(choice.n_train)
    if choice.imbalance is not None:
        data = data.imbalanced(choice.imbalance)
    if choice.n_unseen:
        data = data.hold_out(choice.n_unseen)
    return data.to(device)


@dataclass(frozen=True)
class Training:
    """An original model: one for every method and discovery rate of a task."""

    key: str
    data: DataChoice
    task: Task
    recipe: Recipe
    seed: int
    numerics: Numerics
    work: float


@dataclass(frozen=True)
class Reference:
    """A model that metrics compare with: one for all cells of a task and training seed.

    Args:
        key: content hash.
        role: "retrained", "second_retrained" (the same by another seed, for the noise floor) or "oracle".
        training: the original model of these cells; gives the data, and the task its hardest examples.
        task: whose forget set it is trained without.
        recipe: of the grid, without any method's preparation.
        seed: of initialisation and order.
        work: in epochs.
    """

    key: str
    role: str
    training: Training
    task: Task
    recipe: Recipe
    seed: int
    work: float

    @property
    def requires(self) -> tuple[str, ...]:
        """Keys of the jobs that have to be finished before."""
        return (self.training.key,) if self.task.needs_difficulty and self.role != "oracle" else ()


@dataclass(frozen=True)
class Cell:
    """One method on one task with one training seed and one unlearning seed.

    Args:
        key: content hash, under which the record is stored.
        training: the original model it starts from.
        task: what is to be forgotten.
        task_key: content hash of the task carried out.
        method: with its settings.
        seed: of the data and the original model.
        unlearning_seed: of the unlearning.
        work: in epochs of the original model's training.
        metrics: names of metrics beside those of every record.
        references: the models that these compare with.
        population: models of each population, where one of the metrics needs some; else 0.
    """

    key: str
    training: Training
    task: Task
    task_key: str
    method: Method
    seed: int
    unlearning_seed: int
    work: float
    metrics: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    population: int = 0

    @property
    def requires(self) -> tuple[str, ...]:
        """Keys of the jobs that have to be finished before."""
        return (self.training.key, *(reference.key for reference in self.references))


@dataclass(frozen=True)
class Plan:
    """All jobs of a grid; trainings and references in the order in which cells need them."""

    trainings: tuple[Training, ...]
    cells: tuple[Cell, ...]
    references: tuple[Reference, ...] = ()

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Plan:
        """Return the plan of some cells, each key once, with the original models and references they need."""
        taken = {cell.key: cell for cell in cells}
        trainings = {cell.training.key: cell.training for cell in taken.values()}
        references = {found.key: found for cell in taken.values() for found in cell.references}
        return cls(tuple(trainings.values()), tuple(taken.values()), tuple(references.values()))


def make_plan(
    data: DataChoice,
    tasks: Sequence[Task],
    recipe: Recipe,
    methods: Sequence[Method],
    seeds: Sequence[int],
    numerics: Numerics,
    *,
    unlearning_seeds: Sequence[int] = (),
    metrics: Sequence[str] = (),
    population: int = POPULATION,
) -> Plan:
    """Lay out every combination, each with the content hash under which its record is stored.

    A seed is the seed of the data and of the original model, and without ``unlearning_seeds`` of the unlearning
    too; each derives its own draws from it. The models that ``metrics`` compare with join the plan.

    For what the arguments are see :class:`expunge.sweep.grid.Grid`; ``recipe`` is that of the references too.

    Raises:
        InvalidInput: nothing to do, a seed, method or metric given twice, a metric that a sweep cannot measure,
            a task the data cannot carry, or a model that cannot be made for it.
        UnknownName: no such metric.
    """
    for kind, given, optional in (
        ("tasks", list(tasks), False),
        ("methods", [(method.name, method) for method in methods], False),
        ("seeds", list(seeds), False),
        ("unlearning seeds", list(unlearning_seeds), True),
        ("metrics", list(metrics), True),
    ):
        if not given and not optional:
            raise InvalidInput(f"the grid has no {kind}; name at least one")
        for position, entry in enumerate(given):
            if entry in given[:position]:
                raise InvalidInput(f"the grid names one of its {kind} twice: {entry}")
    for seed in (*seeds, *unlearning_seeds):
        if not abs(seed) < 2**63:
            raise InvalidInput(f"a seed is a whole number of 63 bits, got {seed}; a record could not hold it")
    images = data.load(numerics.device)
    _check(images, tasks, recipe)
    measured = load_metrics(metrics)
    chosen = tuple(sorted(metrics))
    models = population if any(metric.needs_population for metric in measured) else 0
    evaluation = evaluation_epochs(images) * (2 if metrics else 1)
    trainings: dict[str, Training] = {}
    references: dict[str, Reference] = {}
    cells = []
    for seed in seeds:
        for settings in tasks:
            task = dataclasses.replace(settings, seed=seed)
            # Neither key depends on how hard an example was to learn.
            problem = training_problem(data, task, numerics.device)
            training_key, task_key = problem.training_key, problem.key
            roles = references_of(measured, corrupted=task.corrupts)
            for method in methods:
                own = recipe.prepared(method.preparation)
                model_key = fingerprint(training_key, own, seed, numerics.dtype)
                training = trainings.setdefault(
                    model_key, Training(model_key, data, task, own, seed, numerics, float(own.epochs))
                )
                # The hardest samples are those of one original model.
                own_task = fingerprint(task_key, model_key) if task.needs_difficulty else task_key
                needed = []
                for role in roles:
                    trained_on = training_key if role == "oracle" else own_task
                    found = _reference(role, trained_on, training, task, recipe, seed)
                    needed.append(references.setdefault(found.key, found))
                # Halves, whole and retrained; the first two unlearn.
                work = method.typical_epochs(own) * (1 + 2 * models) + evaluation
                work += 3 * models * own.epochs / len(methods)
                for unlearning_seed in unlearning_seeds or (seed,):
                    what = (task_key, model_key, method.name, method, unlearning_seed, KEY_VERSION)
                    # Without further metrics the key is the one of the time before there were any.
                    further = ((chosen,) if chosen else ()) + ((models,) if models else ())
                    run = (method, seed, unlearning_seed, work, chosen, tuple(needed), models)
                    key = fingerprint(*what, *further)
                    cells.append(Cell(key, training, task, own_task, *run))
    return Plan(tuple(trainings.values()), tuple(cells), tuple(references.values()))


def _reference(
    role: str, trained_on: str, training: Training, task: Task, recipe: Recipe, seed: int
) -> Reference:
    own_seed = derive_seed(seed, "reference", role)
    key = fingerprint("reference", role, trained_on, recipe, own_seed, training.numerics.dtype, KEY_VERSION)
    return Reference(key, role, training, task, recipe, own_seed, float(recipe.epochs))


def evaluation_epochs(images: ImageData) -> float:
    """Work of measuring a model once, in training epochs: a forward pass is a third of a training step."""
    n_train = len(images.train_labels)
    return (2 * len(images.test_labels) + n_train) / (3 * n_train)


def _check(images: ImageData, tasks: Sequence[Task], recipe: Recipe) -> None:
    """Raise what is wrong with the tasks and the model on this data, all of it at once."""
    faults: dict[str, InvalidInput] = {}
    checks: list[Callable[[], object]] = [partial(task.check, images) for task in tasks]
    checks.append(partial(recipe.build, images.shape, len(images.classes), torch.Generator()))
    for check in checks:
        try:
            check()
        except InvalidInput as error:
            faults.setdefault(str(error), error)
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        raise InvalidInput(
            f"the grid has {len(faults)} faults on {images.name}:\n"
            + "\n".join(f"- {fault}" for fault in faults)
        )


@lru_cache(maxsize=32)
def training_problem(data: DataChoice, task: Task, device: str) -> Problem:
    """Carry out a task as far as it is known before any training: its training set and its keys."""
    return build_before_training(task, data.load(device))


def build_before_training(task: Task, images: ImageData) -> Problem:
    """Carry out a task on ``images``; one that takes the hardest examples finds all of them equally hard."""
    stand_in = torch.zeros(len(images.train_labels)) if task.needs_difficulty else None
    return task.build(images, stand_in)


def build_problem(training: Training, task: Task, folder: Path | str) -> Problem:
    """Carry out a task on the data of an original model, which is in ``folder`` if the task depends on it."""
    device = training.numerics.device
    if not task.needs_difficulty:
        return training_problem(training.data, task, device)
    difficulty = WeightStore(folder).load(training.key, device)[DIFFICULTY]
    return task.build(training.data.load(device), difficulty)
