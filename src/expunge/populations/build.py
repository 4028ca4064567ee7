"""Train and unlearn the models of populations on worker processes; what is stored already is not made again."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
from torch import nn

from expunge.engine import LocalEngine, WorkerLost
from expunge.errors import Diverged, ExpungeError
from expunge.methods.base import Method
from expunge.methods.request import Request
from expunge.populations.population import Member, Scores
from expunge.populations.stacked import LARGEST, train_together, worth_stacking
from expunge.seeding import derive_seed, generator
from expunge.store.weights import WeightStore
from expunge.tasks.base import Problem, Split
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

Job = tuple[Callable[..., None], object, object]
"""A function of the module and what it is called with after the setting."""


@dataclass(frozen=True)
class Setting:
    """What all models of the populations have in common.

    Args:
        problem: data, forget set and test set.
        recipe: how every model is trained.
        numerics: where to compute.
        folder: of the weight store that keeps weights and scores.
        fresh: makes untrained networks; by default those of ``recipe``.
    """

    problem: Problem
    recipe: Recipe
    numerics: Numerics
    folder: Path | str
    fresh: Callable[[torch.Generator], nn.Module] | None = None

    @property
    def store(self) -> WeightStore:
        """The weight store."""
        return WeightStore(self.folder)


class Crew:
    """The processes that build populations, one thread each; use it as a context manager.

    They are started with the first work for more than one, and end with the block.

    Args:
        setting: what the models have in common.
        workers: how many; by default one per core, or one on an accelerator. One is this process itself.
    """

    def __init__(self, setting: Setting, workers: int | None = None) -> None:
        self.setting = setting
        if workers is None:
            workers = 1 if setting.numerics.device != "cpu" else os.cpu_count() or 1
        self.workers = max(1, workers)
        self._closing = ExitStack()
        self._engine: LocalEngine | None = None
        self._shared = Path()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def carry_out(self, jobs: Sequence[Job], progress: Progress = silent) -> None:
        """Do every job, each called with the setting and its arguments; the first error ends the work.

        Raises:
            ExpungeError: what a job raised, or a worker process that ended.
        """
        if self.workers == 1 or len(jobs) < 2:
            for number, (work, *given) in enumerate(jobs):
                work(self.setting, *given)
                progress((number + 1) / len(jobs))
            return
        engine = self._started()
        waiting, done = list(jobs), 0
        running: set[Future[None]] = set()
        while waiting or running:
            while waiting and len(running) < engine.slots:
                running.add(engine.submit(_in_worker, self._shared, *waiting.pop(0)))
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    future.result()
                except WorkerLost as error:
                    raise ExpungeError(
                        "a worker process ended in the middle of its work; is memory short? Give fewer workers and "
                        "call again: the models that are finished are stored"
                    ) from error
                done += 1
                progress(done / len(jobs))

    def _started(self) -> LocalEngine:
        if self._engine is None:
            folder = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="expunge-population-"))
            # Written once and read once a worker: the data may be large and the jobs many.
            self._shared = Path(folder) / "setting"
            self._shared.write_bytes(pickle.dumps(self.setting))
            self._engine = LocalEngine(self.workers)
            self._closing.callback(self._engine.close)
        return self._engine


def train_members(
    crew: Crew, members: Sequence[Member], *, keep_weights: bool, progress: Progress = silent
) -> int:
    """Train the models whose scores, or weights if ``keep_weights``, are not stored; return how many.

    Small models train in stacks on each worker, others one by one. A model is stored as soon as it is
    finished, so an interruption loses those in flight.

    Raises:
        Diverged: the loss of a model is not finite.
    """
    setting = crew.setting
    missing = [member for member in members if not _stored(setting, member, keep_weights)]
    if not missing:
        return 0
    size = LARGEST if worth_stacking(setting.recipe, _fresh(setting, missing[0]), setting.numerics) else 1
    # No worker without a stack.
    size = min(size, -(-len(missing) // crew.workers))
    stacks = []
    # In a stack all have as many examples.
    for count in dict.fromkeys(len(member.positions) for member in missing):
        alike = [member for member in missing if len(member.positions) == count]
        stacks += [alike[start : start + size] for start in range(0, len(alike), size)]
    crew.carry_out([(_train, stack, keep_weights) for stack in stacks], progress)
    return len(missing)


def unlearn_members(
    crew: Crew, members: Sequence[Member], method: Method, *, progress: Progress = silent
) -> int:
    """Unlearn each member's forget set where its scores are not stored; return how many were unlearned.

    Raises:
        InvalidInput: the method needs what a population cannot give.
        Diverged: an unlearned model has parameters or logits that are not finite.
        StoreError: no weights are there of which :func:`train_members` is to keep some.
    """
    store = crew.setting.store
    missing = [member for member in members if not store.has(member.scores_key(method))]
    crew.carry_out([(_unlearn, member, method) for member in missing], progress)
    return len(missing)


def _stored(setting: Setting, member: Member, keep_weights: bool) -> bool:
    scored = setting.store.has(member.scores_key(None))
    return scored and (not keep_weights or setting.store.has(member.key))


def _fresh(setting: Setting, member: Member) -> nn.Module:
    problem, source = setting.problem, generator(member.seed, "initialisation")
    if setting.fresh is None:
        return setting.recipe.build(problem.shape, problem.n_classes, source)
    made, tied = setting.fresh(source), setting.recipe.example_tied
    return made if tied is None else tied.widen(made, source)


def _train(setting: Setting, members: Sequence[Member], keep_weights: bool) -> None:
    models = [_fresh(setting, member) for member in members]
    parts = [setting.problem.split.train.select(member.positions) for member in members]
    seeds = [member.seed for member in members]
    meter = Meter(setting.numerics.device)
    try:
        with meter:
            if len(members) > 1:
                train_together(setting.recipe, models, parts, seeds, setting.numerics, meter)
            else:
                setting.recipe.train(models[0], parts[0], seeds[0], setting.numerics, meter)
    except Diverged as error:
        raise Diverged(f"training a population of {setting.recipe.model}: {error}") from error
    for member, model in zip(members, models, strict=True):
        scores = Scores.of(setting.numerics.place(model), setting.problem, setting.numerics)
        if keep_weights:
            setting.store.save(member.key, model.state_dict(), {"content": "population member"})
        scores.save(setting.store, member.scores_key(None))


def _unlearn(setting: Setting, member: Member, method: Method) -> None:
    problem, recipe = setting.problem, setting.recipe
    model = _fresh(setting, member)
    model.load_state_dict(setting.store.load(member.key))
    setting.numerics.place(model)
    forget = torch.searchsorted(member.positions, member.forget)
    request = Request(
        Split(problem.split.train.select(member.positions), forget, problem.split.unseen),
        seed=derive_seed(member.seed, "unlearning"),
        numerics=setting.numerics,
        recipe=recipe,
        codes=recipe.draw_codes(member.seed, problem.shape, problem.n_classes),
    )
    unlearned = method(model, request).model
    Scores.of(unlearned, problem, setting.numerics).save(setting.store, member.scores_key(method))


def _in_worker(shared: Path, work: Callable[..., None], *given: object) -> None:
    torch.set_num_threads(1)
    work(_read(shared), *given)


@lru_cache(maxsize=1)
def _read(shared: Path) -> Setting:
    # The coordinator of this process has just written it, in a folder of its own.
    setting = pickle.loads(shared.read_bytes())
    assert isinstance(setting, Setting)
    return setting
