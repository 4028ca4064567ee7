"""The trials of ``expunge tune``: what they are run on, and how each is scored."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.api import load_method
from expunge.data.examples import Examples
from expunge.data.images import ImageData, ImageSource, rank_in_class
from expunge.errors import Diverged, InvalidInput
from expunge.methods.base import Method, Needs, Request
from expunge.sweep.grid import Grid
from expunge.sweep.original_model import OriginalModel, train_original
from expunge.sweep.plan import build_before_training
from expunge.tasks.base import Split, Task
from expunge.training.loop import Progress, accuracy, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_SHARE = 0.1
"""Share of the training images that is held out for validation where the grid holds out none."""


@dataclass(frozen=True)
class Trial:
    """One choice of the searched settings and what came of it.

    Args:
        number: from 0, in the order they were run; 0 is the untuned settings.
        settings: the searched settings.
        score: mean over tasks and tuning seeds; the lowest possible one for a failed trial.
        status: "done" or "failed".
        error: why it failed.
        seconds: of its unlearning and scoring.
        sample_gradients: of its unlearning; runs that failed are not counted.
    """

    number: int
    settings: dict[str, Any]
    score: float
    status: str
    error: str
    seconds: float
    sample_gradients: int


class Clock:
    """Adds up the work done and reports its share of the whole, and what is being done."""

    def __init__(self, report: Callable[[float, str], None], total: float) -> None:
        self._report, self._total, self._done = report, total, 0.0
        self.best: float | None = None

    def say(self, doing: str, part: float = 0.0) -> None:
        """Report ``doing`` with ``part`` of work beyond what is finished."""
        best = "" if self.best is None or not doing else f", best score {self.best:.4f}"
        self._report(min(1.0, (self._done + part) / self._total), doing + best)

    def finish(self, work: float) -> None:
        """Count ``work`` as done."""
        self._done += work

    def within(self, doing: str, work: float) -> Progress:
        """Return a listener for one job of ``work``."""
        return lambda share: self.say(doing, share * work)


@dataclass(frozen=True)
class Validation:
    """Held-out images.

    Args:
        given: what a method that needs unseen images is given.
        kept: what scores are taken on; no image of the forgotten concept.
        siblings: for sub-classes, those of the other sub-classes under the same label.
    """

    given: Examples | None
    kept: Examples
    siblings: Examples | None


def hold_out(grid: Grid, device: str) -> tuple[ImageData, Tensor | None, Tensor | None]:
    """Return the data with validation images apart and a blank test image.

    With it, the positions of the images that stayed, unless the grid itself counts its images without those
    held out; and the fine labels of the validation images, where there are some.
    """
    data = dataclasses.replace(grid.data, n_unseen=None).load(device)
    one = torch.zeros(1, dtype=torch.int64, device=data.train_labels.device)
    data = dataclasses.replace(
        data,
        test_images=torch.zeros_like(data.train_images[:1]),
        test_labels=one,
        test_fine=None if data.test_fine is None else one,
    )
    total = len(data.train_labels)
    positions = torch.arange(total, device=one.device)
    # The fine labels travel with the images; here they carry the positions.
    count = grid.data.n_unseen or max(1, round(_SHARE * total))
    marked = dataclasses.replace(data, train_fine=positions).hold_out(count)
    kept = marked.train_fine
    assert kept is not None
    if not grid.data.n_unseen:
        for task in grid.tasks:
            task.check(data)
    fine = data.train_fine
    images = dataclasses.replace(marked, train_fine=None if fine is None else fine[kept])
    unseen_fine = None if fine is None else fine[~torch.isin(positions, kept)]
    return images, None if grid.data.n_unseen else kept, unseen_fine


def validation_for(method: Method, task: Task, images: ImageData, fine: Tensor | None) -> Validation:
    """Share the held-out part of ``images`` out; ``fine`` holds its fine labels, where there are some.

    Raises:
        InvalidInput: too few images.
    """
    assert images.unseen_images is not None
    assert images.unseen_labels is not None
    labels = images.unseen_labels
    source = ImageSource(images.unseen_images, images.mean, images.std)
    unseen = Examples.all_of(source, labels, len(images.classes))
    own, given = torch.ones_like(labels, dtype=torch.bool), None
    if Needs.UNSEEN in method.needs:
        own = rank_in_class(labels) % 2 == 0
        given = unseen.select(~own)
    held = dataclasses.replace(images, test_images=images.unseen_images, test_labels=labels, test_fine=fine)
    concept, beside = task.concept(held) or (torch.zeros_like(own), torch.zeros_like(own))
    siblings = unseen.select(own & beside)
    kept = unseen.select(own & ~concept)
    if not len(kept) or (given is not None and not len(given)):
        raise InvalidInput(
            f"{len(labels)} validation images are too few for the task {task.kind!r}: none is left outside the "
            "forgotten concept, or for the method; hold out more with n_unseen in [data]"
        )
    return Validation(given, kept, siblings if len(siblings) else None)


@dataclass(frozen=True)
class Case:
    """A task with one tuning seed: the original model, what a method may see, what it is scored on."""

    task: Task
    model: nn.Module
    split: Split
    codes: Tensor | None
    validation: Validation
    target: tuple[float, ...] | None


class Trials:
    """The cases of a study, and its trials on them.

    Original models are trained once for all tasks of a seed that share their training set. The ``clock`` is told of
    all work; the other arguments are those of :func:`expunge.sweep.tune.tune`.

    Raises:
        InvalidInput: a task the data cannot carry, or something the method needs that cannot be given.
        Diverged: a training led to NaN.
    """

    def __init__(
        self, method: Method, grid: Grid, recipe: Recipe, seeds: Sequence[int], numerics: Numerics, *, oracle: bool,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._method, self._recipe, self._numerics = method, recipe, numerics
        self._oracle, self._clock = oracle, clock
        self._images, self._kept, self._unseen_fine = hold_out(grid, numerics.device)
        self._trained: dict[tuple[str, int], OriginalModel] = {}
        self._cases = [
            self._case(dataclasses.replace(task, seed=seed)) for seed in seeds for task in grid.tasks
        ]

    def _case(self, task: Task) -> Case:
        recipe, clock, numerics, seed = self._recipe, self._clock, self._numerics, task.seed
        task = task if self._kept is None else task.renumbered(self._kept)
        if task.needs_difficulty and recipe.example_tied is not None:
            raise InvalidInput(
                f"task {task.kind!r} needs every example's training loss, which example-tied dropout does "
                "not record; leave that task out of the grid"
            )
        problem = build_before_training(task, self._images)
        validation = validation_for(self._method, task, self._images, self._unseen_fine)
        split = dataclasses.replace(problem.split, unseen=validation.given)
        codes = recipe.draw_codes(seed, problem.shape, problem.n_classes)
        # What the method cannot be given is found before anything is trained.
        self._request(split, seed, codes, silent).grant(self._method.name, self._method.needs)
        key = (problem.training_key, seed)
        if key not in self._trained:
            listener = clock.within(f"original model, seed {seed}", recipe.epochs)
            self._trained[key] = train_original(recipe, problem, seed, numerics, listener)
        clock.finish(recipe.epochs)
        first = self._trained[key]
        if task.needs_difficulty:
            hardest = task.build(self._images, first.difficulty).split
            split = dataclasses.replace(hardest, unseen=validation.given)
        target = None
        if self._oracle:
            listener = clock.within(f"retrained model, {task.kind}, seed {seed}", recipe.epochs)
            request = self._request(split, seed, codes, listener)
            target = self._accuracies(load_method("retrain")(first.model, request).model, split, validation)
            clock.finish(recipe.epochs)
        return Case(task, first.model, split, codes, validation, target)

    def _request(self, split: Split, seed: int, codes: Tensor | None, listener: Progress) -> Request:
        return Request(
            split, seed=seed, numerics=self._numerics, recipe=self._recipe, codes=codes, progress=listener
        )

    def run(self, number: int, settings: dict[str, Any], each: float, total: int) -> Trial:
        """Run the method with ``settings`` on every case; a run that fails ends the trial with the lowest score.

        ``each`` is the work of one run, in epochs, and ``total`` the number of trials.
        """
        scores: list[float] = []
        gradients, error, began = 0, "", time.perf_counter()
        for position, case in enumerate(self._cases):
            doing = f"trial {number + 1} of {total}, {case.task.kind}, seed {case.task.seed}"
            self._clock.say(doing)
            request = self._request(case.split, case.task.seed, case.codes, self._clock.within(doing, each))
            try:
                unlearned = dataclasses.replace(self._method, **settings)(case.model, request)
            except (Diverged, InvalidInput) as failure:
                error = f"{type(failure).__name__}: {failure}"
                self._clock.finish(each * (len(self._cases) - position))
                break
            gradients += unlearned.cost.sample_gradients
            scores.append(self._score(case, unlearned.model))
            self._clock.finish(each)
        # Minus one is the largest gap there is: zero would be the best score of an oracle.
        score = (-1.0 if self._oracle else 0.0) if error else sum(scores) / len(scores)
        seconds = time.perf_counter() - began
        return Trial(number, settings, score, "failed" if error else "done", error, seconds, gradients)

    def _score(self, case: Case, model: nn.Module) -> float:
        if case.target is not None:
            found = self._accuracies(model, case.split, case.validation)
            gaps = [abs(ours - theirs) for ours, theirs in zip(found, case.target, strict=True)]
            return -sum(gaps) / len(gaps)
        forget = accuracy(model, case.split.forget, self._numerics)
        validation = accuracy(model, case.validation.kept, self._numerics)
        siblings = case.validation.siblings
        beside = None if siblings is None else accuracy(model, siblings, self._numerics)
        return case.task.tuning_score(forget, validation, beside, 1 / case.split.train.n_classes)

    def _accuracies(self, model: nn.Module, split: Split, validation: Validation) -> tuple[float, ...]:
        """Accuracy on the given labels of retain and forget set, and on the validation images."""
        sets = split.retain, split.forget, validation.kept
        return tuple(accuracy(model, examples, self._numerics) for examples in sets)
