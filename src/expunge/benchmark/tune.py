"""Fair tuning: every method gets the same number of trials, and no trial sees a test image or the truth."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from expunge.api import load_method
from expunge.benchmark.grid import Grid
from expunge.data.examples import Examples
from expunge.data.images import ImageData, ImageSource
from expunge.errors import Diverged, InvalidInput
from expunge.methods.base import Method, Needs, Request, Search
from expunge.registry import METHODS
from expunge.seeding import generator
from expunge.tasks.base import Split, Task
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetIndices, ForgetSubclass
from expunge.training.cost import Meter
from expunge.training.difficulty import LossRecorder
from expunge.training.loop import Progress, predict, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

SHARE = 0.1
"""Share of the training images that is held out for validation where the grid holds out none."""
RULE = "validation accuracy x forgetting quality"
ORACLE_RULE = "ORACLE: minus the average gap to the retrained model"


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


@dataclass(frozen=True)
class Tuned:
    """The outcome of a study.

    Args:
        name: of the method, as it was asked for.
        method: with the best settings.
        best: the trial of the highest score; of equal ones the first.
        trials: all of them, in the order they were run.
        rule: how a trial was scored.
        tuning_seeds: of data, first training and unlearning.
        seed: of the sampler.
        oracle: whether the score knew the retrained model.
    """

    name: str
    method: Method
    best: Trial
    trials: tuple[Trial, ...]
    rule: str
    tuning_seeds: tuple[int, ...]
    seed: int
    oracle: bool

    @property
    def settings(self) -> dict[str, Any]:
        """The best searched settings."""
        return self.best.settings

    @property
    def score(self) -> float:
        """Of the best trial."""
        return self.best.score

    @property
    def budget(self) -> dict[str, float]:
        """Trials, seconds and sample gradients that the search took, first trainings apart."""
        return {
            "trials": len(self.trials),
            "seconds": sum(trial.seconds for trial in self.trials),
            "sample_gradients": sum(trial.sample_gradients for trial in self.trials),
        }


@dataclass(frozen=True)
class TuneStatus:
    """How far a study is: share of the work, what is being done, the trials so far."""

    share: float
    doing: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class _Validation:
    """Held-out images: what a method that needs unseen ones is given, and what scores are taken on.

    ``siblings`` is there for sub-classes only.
    """

    given: Examples | None
    kept: Examples
    siblings: Examples | None


@dataclass(frozen=True)
class _Case:
    """A task with one tuning seed: the first model, what a method may see, what it is scored on."""

    task: Task
    seed: int
    model: nn.Module
    split: Split
    recipe: Recipe
    codes: Tensor | None
    validation: _Validation
    target: tuple[float, float, float] | None


def tune(
    method_name: str,
    grid: Grid,
    *,
    trials: int = 20,
    seed: int = 0,
    oracle: bool = False,
    report: Callable[[TuneStatus], None] = lambda _: None,
    tuning_seeds: Sequence[int] = (100, 101),
    numerics: Numerics | None = None,
) -> Tuned:
    """Search a method's settings on validation images that are held out of the training images.

    The grid's test images are replaced by a blank one before anything is built, and what really happened to
    the data is never read. A trial's score is the mean over tasks and tuning seeds of

        accuracy on validation images outside the forgotten concept  x  forgetting quality,

    where the quality, with a_f the accuracy on the stored labels of the forget set, is

    * classes and corruption: 1 - max(0, a_f - chance) / (1 - chance);
    * samples: 1 - |a_f - a_val|, since forgotten samples are to look like unseen ones;
    * sub-classes: 1 - |a_f - a_siblings|, with the accuracy on validation images of the other sub-classes
      under the same label: what is forgotten is to look like unseen images that share only the label.

    As an oracle, the score is minus the mean absolute gap to the retrained model in the accuracies on
    retain, forget and validation images. Corruption is added after the validation images are taken, so
    their labels are right. A method that reads unseen images is given half of the validation images and
    scored on the other half.

    Args:
        method_name: a name in the table of methods, or a ``"module:Class"`` path.
        grid: data, tasks and recipe; its settings of the method, if it has any, are the first trial.
        trials: how many choices are tried, the first one included.
        seed: of the sampler.
        oracle: score by the distance to the retrained model, which nobody has outside an experiment.
        report: called as the work goes on.
        tuning_seeds: of data, first training and unlearning; none of the grid's own.
        numerics: where to compute; by default the fastest setting that is safe here.

    Raises:
        UnknownName: no such method.
        InvalidInput: a method without searched settings or one that needs the truth, fewer than one trial,
            tuning seeds that are none, repeated or the grid's own, no optuna, or no trial that worked.
        Diverged: a first training led to NaN.
    """
    start, space = _start(method_name, grid)
    seeds = _checked(trials, tuning_seeds, grid)
    optuna = _optuna()
    if numerics is None:
        numerics = Numerics.choose(None, grid.data.load("cpu").shape[1])
    cases_total = len(grid.tasks) * len(seeds)
    recipe = grid.recipe.prepared(start.preparation)
    each = start.typical_epochs(recipe) + 0.2
    clock = _Clock(report, cases_total * (recipe.epochs * (2 if oracle else 1) + trials * each))
    cases = _prepare(start, grid, recipe, seeds, numerics, oracle, clock)
    study = _Study(optuna, space, seed)
    done: list[Trial] = []
    for number in range(trials):
        proposed = study.ask() if number else None
        settings = study.settings(proposed) if number else {name: getattr(start, name) for name in space}
        clock.trials = tuple(done)
        trial = _run_trial(number, start, settings, cases, numerics, oracle, clock, each, trials)
        study.tell(proposed, settings, trial.score)
        done.append(trial)
    clock.trials = tuple(done)
    clock.say("")
    worked = [trial for trial in done if trial.status == "done"]
    if not worked:
        raise InvalidInput(
            f"none of the {trials} trials of {method_name!r} worked; the first one failed with: {done[0].error}"
        )
    best = max(worked, key=lambda trial: trial.score)
    return Tuned(
        method_name,
        dataclasses.replace(start, **best.settings),
        best,
        tuple(done),
        ORACLE_RULE if oracle else RULE,
        seeds,
        seed,
        oracle,
    )


def _start(name: str, grid: Grid) -> tuple[Method, dict[str, Search]]:
    """Return the method with the settings it has without tuning, and what is searched."""
    start = load_method(name)
    start = next((method for method in grid.methods if type(method) is type(start)), start)
    if start.oracle:
        raise InvalidInput(
            f"method {name!r} is an oracle: it reads the truth, which tuning never shows; tune another method"
        )
    space = start.search_space()
    if not space:
        others = [other for other in METHODS.names() if METHODS.get(other).search_space()]
        raise InvalidInput(
            f"method {name!r} has no searched settings, so there is nothing to tune; give fields a range with "
            f"searched(default, low, high), or tune one of: {', '.join(others) or 'none'}"
        )
    return start, space


def _checked(trials: int, tuning_seeds: Sequence[int], grid: Grid) -> tuple[int, ...]:
    if trials < 1:
        raise InvalidInput(f"trials must be at least 1, got {trials}")
    seeds = tuple(tuning_seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InvalidInput(f"tuning seeds must be at least one, each given once, got {list(seeds)}")
    shared = sorted(set(seeds) & set(grid.seeds))
    if shared:
        raise InvalidInput(
            f"tuning seed {shared[0]} is also a seed of the grid (seeds {list(grid.seeds)}); results would be "
            "reported on what was tuned on, so name other tuning seeds"
        )
    return seeds


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise InvalidInput(
            f"tuning needs optuna, which cannot be imported ({error}); run: pip install 'expunge[tune]'"
        ) from error
    return optuna  # type: ignore[no-any-return, unused-ignore]


class _Study:
    """Optuna's TPE behind ask and tell; the first trial is told without having been asked for."""

    def __init__(self, optuna: ModuleType, space: Mapping[str, Search], seed: int) -> None:
        self._optuna, self._space = optuna, space
        made = optuna.distributions
        self._distributions: dict[str, Any] = {}
        for name, search in space.items():
            if isinstance(search.low, int):
                chosen = made.IntDistribution(search.low, int(search.high), log=search.log)
            else:
                chosen = made.FloatDistribution(search.low, search.high, log=search.log)
            self._distributions[name] = chosen
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study otherwise
        try:
            sampler = optuna.samplers.TPESampler(seed=seed)
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def ask(self) -> Any:
        """Return a trial with a value for every searched setting."""
        return self._study.ask(self._distributions)

    @staticmethod
    def settings(trial: Any) -> dict[str, Any]:
        """Return what a trial proposes."""
        return dict(trial.params)

    def tell(self, trial: Any, settings: Mapping[str, Any], score: float) -> None:
        """Let the sampler know a score; ``None`` stands for the trial of the untuned settings."""
        if trial is not None:
            self._study.tell(trial, score)
            return
        numeric = all(isinstance(value, int | float) for value in settings.values())
        inside = numeric and all(
            search.low <= settings[name] <= search.high for name, search in self._space.items()
        )
        if inside:  # the sampler knows nothing outside its ranges
            frozen = self._optuna.trial.create_trial(
                params=dict(settings), distributions=self._distributions, value=score
            )
            self._study.add_trial(frozen)


class _Clock:
    """Adds up the work done and reports it."""

    def __init__(self, report: Callable[[TuneStatus], None], total: float) -> None:
        self._report, self._total, self._done = report, total, 0.0
        self.trials: tuple[Trial, ...] = ()

    def say(self, doing: str, part: float = 0.0) -> None:
        """Report ``doing`` with ``part`` of work beyond what is finished."""
        self._report(TuneStatus(min(1.0, (self._done + part) / self._total), doing, self.trials))

    def finish(self, work: float) -> None:
        """Count ``work`` as done."""
        self._done += work

    def within(self, doing: str, work: float) -> Progress:
        """Return a listener for one job of ``work``."""
        return lambda share: self.say(doing, share * work)


def _prepare(
    method: Method,
    grid: Grid,
    recipe: Recipe,
    seeds: Sequence[int],
    numerics: Numerics,
    oracle: bool,
    clock: _Clock,
) -> list[_Case]:
    """Train the first models, one for all tasks of a seed that share their training set."""
    images, kept, unseen_fine = _held_out(grid, numerics.device)
    cases = []
    trained: dict[tuple[str, int], tuple[nn.Module, Tensor | None]] = {}
    for seed in seeds:
        for settings in grid.tasks:
            task = _renumbered(dataclasses.replace(settings, seed=seed), kept)  # type: ignore[type-var]
            if task.needs_difficulty and recipe.example_tied is not None:
                raise InvalidInput(
                    f"task {task.kind!r} needs every example's training loss, which example-tied dropout does "
                    "not record; leave that task out of the grid"
                )
            stand_in = torch.zeros(len(images.train_labels)) if task.needs_difficulty else None
            problem = task.build(images, stand_in)
            validation = _validation(method, task, images, unseen_fine)
            split = dataclasses.replace(problem.split, unseen=validation.given)
            codes = recipe.draw_codes(seed, problem.shape, problem.n_classes)
            # What the method cannot be given is found before anything is trained.
            _request(split, seed, numerics, recipe, codes, silent).grant(method.name, method.needs)
            key = (problem.training_key, seed)
            if key not in trained:
                listener = clock.within(f"first model, seed {seed}", recipe.epochs)
                shape, n_classes = problem.shape, problem.n_classes
                trained[key] = _train(recipe, split.train, shape, n_classes, seed, numerics, listener)
            clock.finish(recipe.epochs)
            model, difficulty = trained[key]
            if task.needs_difficulty:
                hardest = task.build(images, difficulty).split
                split = dataclasses.replace(hardest, unseen=validation.given)
            target = None
            if oracle:
                listener = clock.within(f"retrained model, {task.kind}, seed {seed}", recipe.epochs)
                request = _request(split, seed, numerics, recipe, codes, listener)
                retrained = load_method("retrain")(model, request).model
                target = _accuracies(retrained, split, validation, numerics)
                clock.finish(recipe.epochs)
            cases.append(_Case(task, seed, model, split, recipe, codes, validation, target))
    return cases


def _train(
    recipe: Recipe,
    train: Examples,
    shape: tuple[int, int, int],
    n_classes: int,
    seed: int,
    numerics: Numerics,
    listener: Progress,
) -> tuple[nn.Module, Tensor | None]:
    model = recipe.build(shape, n_classes, generator(seed, "initialisation"))
    meter = Meter(numerics.device)
    if recipe.example_tied is not None:
        with meter:
            recipe.train(model, train, seed, numerics, meter, progress=listener)
        return model, None
    recorder = LossRecorder(len(train), numerics.device)
    with meter:
        recipe.train(model, train, seed, numerics, meter, progress=listener, objective=recorder)
    return model, recorder.means()


def _held_out(grid: Grid, device: str) -> tuple[ImageData, Tensor | None, Tensor | None]:
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
    count = grid.data.n_unseen or max(1, round(SHARE * total))
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


def _renumbered(task: Task, kept: Tensor | None) -> Task:
    """Return the task with its indices counted among the images that stayed; those held out drop out."""
    if kept is None or not isinstance(task, ForgetIndices):
        return task
    place = {position: number for number, position in enumerate(kept.tolist())}
    left = tuple(place[index] for index in task.indices if index in place)
    if not left:
        raise InvalidInput(
            f"all {len(task.indices)} indices to be forgotten are among the validation images held out; "
            "name more of them, or hold out fewer images with n_unseen in [data]"
        )
    return dataclasses.replace(task, indices=left)


def _validation(method: Method, task: Task, images: ImageData, fine: Tensor | None) -> _Validation:
    assert images.unseen_images is not None
    assert images.unseen_labels is not None
    labels = images.unseen_labels
    source = ImageSource(images.unseen_images, images.mean, images.std)
    unseen = Examples.all_of(source, labels, len(images.classes))
    own, given = torch.ones_like(labels, dtype=torch.bool), None
    if Needs.UNSEEN in method.needs:
        own = _every_second(labels, len(images.classes))
        given = unseen.select(~own)
    concept, siblings = torch.zeros_like(own), None
    if isinstance(task, ForgetClasses):
        concept = torch.isin(labels, torch.tensor(task.classes, device=labels.device))
    elif isinstance(task, ForgetSubclass):
        assert fine is not None
        assert images.train_fine is not None
        concept = fine == task.fine
        label = images.train_labels[images.train_fine == task.fine][:1]
        siblings = unseen.select(own & (labels == label) & ~concept)
    kept = unseen.select(own & ~concept)
    if not len(kept) or (given is not None and not len(given)):
        raise InvalidInput(
            f"{len(labels)} validation images are too few for the task {task.kind!r}: none is left outside the "
            "forgotten concept, or for the method; hold out more with n_unseen in [data]"
        )
    return _Validation(given, kept, siblings if siblings is not None and len(siblings) else None)


def _every_second(labels: Tensor, n_classes: int) -> Tensor:
    """Mask of the first, third, ... image of every class."""
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(n_classes):
        chosen[(labels == label).nonzero().flatten()[::2]] = True
    return chosen


def _request(
    split: Split, seed: int, numerics: Numerics, recipe: Recipe, codes: Tensor | None, listener: Progress
) -> Request:
    return Request(split, seed=seed, numerics=numerics, recipe=recipe, codes=codes, progress=listener)


def _run_trial(
    number: int,
    start: Method,
    settings: dict[str, Any],
    cases: Sequence[_Case],
    numerics: Numerics,
    oracle: bool,
    clock: _Clock,
    each: float,
    total: int,
) -> Trial:
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


def _score(case: _Case, model: nn.Module, numerics: Numerics) -> float:
    if case.target is not None:
        found = _accuracies(model, case.split, case.validation, numerics)
        return -sum(abs(ours - theirs) for ours, theirs in zip(found, case.target, strict=True)) / len(found)
    forget = _accuracy(model, case.split.forget, numerics)
    validation = _accuracy(model, case.validation.kept, numerics)
    if isinstance(case.task, ForgetClasses | CorruptionTask):
        chance = 1 / case.split.train.n_classes
        return validation * (1 - max(0.0, forget - chance) / (1 - chance))
    siblings = case.validation.siblings
    expected = validation if siblings is None else _accuracy(model, siblings, numerics)
    return validation * (1 - abs(forget - expected))


def _accuracies(
    model: nn.Module, split: Split, validation: _Validation, numerics: Numerics
) -> tuple[float, float, float]:
    """Accuracy on the stored labels of retain and forget set, and on the validation images."""
    retain, forget = _accuracy(model, split.retain, numerics), _accuracy(model, split.forget, numerics)
    return retain, forget, _accuracy(model, validation.kept, numerics)


def _accuracy(model: nn.Module, examples: Examples, numerics: Numerics) -> float:
    logits = predict(model, examples, numerics)
    right = (logits.argmax(1) == examples.labels.to(logits.device)) & ~logits.isnan().any(1)
    return float(right.double().mean())
