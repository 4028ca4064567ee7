"""What a trial is run on, and how it is scored."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from expunge.api import load_method
from expunge.errors import Diverged, InvalidInput
from expunge.methods.base import Method, Request
from expunge.sweep.grid import Grid
from expunge.sweep.original_model import FirstModel, train_first
from expunge.sweep.plan import build_before_training
from expunge.sweep.tuning.held_out import Validation, hold_out, validation_for
from expunge.sweep.tuning.trials import Clock, Trial
from expunge.tasks.base import Split, Task
from expunge.training.loop import Progress, accuracy, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe


@dataclass(frozen=True)
class Case:
    """A task with one tuning seed: the original model, what a method may see, what it is scored on."""

    task: Task
    seed: int
    model: nn.Module
    split: Split
    recipe: Recipe
    codes: Tensor | None
    validation: Validation
    target: tuple[float, float, float] | None


def prepare(
    method: Method,
    grid: Grid,
    recipe: Recipe,
    seeds: Sequence[int],
    numerics: Numerics,
    oracle: bool,
    clock: Clock,
) -> list[Case]:
    """Return the cases; original models are trained once for all tasks of a seed that share their training set.

    Raises:
        InvalidInput: a task the data cannot carry, or something the method needs that cannot be given.
        Diverged: a training led to NaN.
    """
    images, kept, unseen_fine = hold_out(grid, numerics.device)
    cases = []
    trained: dict[tuple[str, int], FirstModel] = {}
    for seed in seeds:
        for settings in grid.tasks:
            task = dataclasses.replace(settings, seed=seed)
            task = task if kept is None else task.renumbered(kept)
            if task.needs_difficulty and recipe.example_tied is not None:
                raise InvalidInput(
                    f"task {task.kind!r} needs every example's training loss, which example-tied dropout does "
                    "not record; leave that task out of the grid"
                )
            problem = build_before_training(task, images)
            validation = validation_for(method, task, images, unseen_fine)
            split = dataclasses.replace(problem.split, unseen=validation.given)
            codes = recipe.draw_codes(seed, problem.shape, problem.n_classes)
            # What the method cannot be given is found before anything is trained.
            _request(split, seed, numerics, recipe, codes, silent).grant(method.name, method.needs)
            key = (problem.training_key, seed)
            if key not in trained:
                listener = clock.within(f"original model, seed {seed}", recipe.epochs)
                trained[key] = train_first(recipe, problem, seed, numerics, listener)
            clock.finish(recipe.epochs)
            model = trained[key].model
            if task.needs_difficulty:
                hardest = task.build(images, trained[key].difficulty).split
                split = dataclasses.replace(hardest, unseen=validation.given)
            target = None
            if oracle:
                listener = clock.within(f"retrained model, {task.kind}, seed {seed}", recipe.epochs)
                request = _request(split, seed, numerics, recipe, codes, listener)
                retrained = load_method("retrain")(model, request).model
                target = _accuracies(retrained, split, validation, numerics)
                clock.finish(recipe.epochs)
            cases.append(Case(task, seed, model, split, recipe, codes, validation, target))
    return cases


def _request(
    split: Split, seed: int, numerics: Numerics, recipe: Recipe, codes: Tensor | None, listener: Progress
) -> Request:
    return Request(split, seed=seed, numerics=numerics, recipe=recipe, codes=codes, progress=listener)


def run_trial(
    number: int,
    start: Method,
    settings: dict[str, Any],
    cases: Sequence[Case],
    numerics: Numerics,
    oracle: bool,
    clock: Clock,
    each: float,
    total: int,
) -> Trial:
    """Run ``start`` with ``settings`` on every case; a run that fails ends the trial, which has the lowest score."""
    scores: list[float] = []
    gradients, error, began = 0, "", time.perf_counter()
    for position, case in enumerate(cases):
        doing = f"trial {number + 1} of {total}, {case.task.kind}, seed {case.seed}"
        clock.say(doing)
        request = _request(
            case.split, case.seed, numerics, case.recipe, case.codes, clock.within(doing, each)
        )
        try:
            unlearned = dataclasses.replace(start, **settings)(case.model, request)
        except (Diverged, InvalidInput) as failure:
            error = f"{type(failure).__name__}: {failure}"
            clock.finish(each * (len(cases) - position))
            break
        gradients += unlearned.cost.sample_gradients
        scores.append(_score(case, unlearned.model, numerics))
        clock.finish(each)
    # Minus one is the largest gap there is: zero would be the best score of an oracle.
    score = (-1.0 if oracle else 0.0) if error else sum(scores) / len(scores)
    seconds = time.perf_counter() - began
    return Trial(number, settings, score, "failed" if error else "done", error, seconds, gradients)


def _score(case: Case, model: nn.Module, numerics: Numerics) -> float:
    if case.target is not None:
        found = _accuracies(model, case.split, case.validation, numerics)
        return -sum(abs(ours - theirs) for ours, theirs in zip(found, case.target, strict=True)) / len(found)
    forget = accuracy(model, case.split.forget, numerics)
    validation = accuracy(model, case.validation.kept, numerics)
    siblings = case.validation.siblings
    beside = None if siblings is None else accuracy(model, siblings, numerics)
    return case.task.tuning_score(forget, validation, beside, 1 / case.split.train.n_classes)


def _accuracies(
    model: nn.Module, split: Split, validation: Validation, numerics: Numerics
) -> tuple[float, float, float]:
    """Accuracy on the given labels of retain and forget set, and on the validation images."""
    retain, forget = accuracy(model, split.retain, numerics), accuracy(model, split.forget, numerics)
    return retain, forget, accuracy(model, validation.kept, numerics)
