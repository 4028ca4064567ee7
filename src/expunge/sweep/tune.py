"""Fair tuning: every method gets the same number of trials, and no trial sees a test image or the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from expunge.api import load_method
from expunge.errors import InvalidInput
from expunge.methods.base import Method, Search
from expunge.optional import load_extra
from expunge.registry import METHODS
from expunge.sweep.grid import Grid, Setup
from expunge.sweep.trials import Clock, Trial, Trials
from expunge.training.numerics import Numerics

RULE = "validation accuracy x forgetting quality"
ORACLE_RULE = "ORACLE: minus the average gap to the retrained model"


@dataclass(frozen=True)
class Tuned:
    """The outcome of a study.

    Args:
        method: with the best settings.
        best: the trial of the highest score; of equal ones the first.
        trials: all of them, in the order they were run.
        rule: how a trial was scored.
        interrupted: whether the search was ended by hand before its last trial.
    """

    method: Method
    best: Trial
    trials: tuple[Trial, ...]
    rule: str
    interrupted: bool

    @property
    def budget(self) -> dict[str, float]:
        """Trials, seconds and sample gradients that the search took, trainings of original models apart."""
        return {
            "trials": len(self.trials),
            "seconds": sum(trial.seconds for trial in self.trials),
            "sample_gradients": sum(trial.sample_gradients for trial in self.trials),
        }


def tune(
    method_name: str,
    grid: Grid,
    *,
    trials: int = 20,
    seed: int = 0,
    oracle: bool = False,
    report: Callable[[float, str], None] = lambda _share, _doing: None,
    tuning_seeds: Sequence[int] = (100, 101),
    numerics: Numerics | None = None,
) -> Tuned:
    """Search a method's settings on validation images that are held out of the training images.

    The grid's test images are replaced by a blank one before anything is built, and what really happened to
    the data is never read. A trial's score is the mean over tasks and tuning seeds of

        accuracy on validation images outside the forgotten concept  x  forgetting quality,

    where the quality, with a_f the accuracy on the given labels of the forget set, is

    * classes and corruption: 1 - max(0, a_f - chance) / (1 - chance);
    * samples: 1 - |a_f - a_val|, since forgotten samples are to look like unseen ones;
    * sub-classes: 1 - |a_f - a_siblings|, with the accuracy on validation images of the other sub-classes
      under the same label: what is forgotten is to look like unseen images that share only the label.

    As an oracle, the score is minus the mean absolute gap to the retrained model in the accuracies on
    retain, forget and validation images. Corruption is added after the validation images are taken, so
    their labels are right. A method that reads unseen images is given half of the validation images and
    scored on the other half.

    A KeyboardInterrupt after the first trial ends the search; what is finished counts.

    Args:
        method_name: a name in the table of methods, or a ``"module:Class"`` path.
        grid: data, tasks and one recipe; its settings of the method, if it has any, are the first trial.
        trials: how many choices are tried, the first one included.
        seed: of the sampler.
        oracle: score by the distance to the retrained model, which nobody has outside an experiment.
        report: called with the share of the work that is done and what is being done.
        tuning_seeds: of data, training and unlearning; none of the grid's own.
        numerics: where to compute; by default the fastest setting that is safe here.

    Raises:
        UnknownName: no such method.
        InvalidInput: a method without searched settings or one that needs the truth, fewer than one trial,
            a grid of several recipes, tuning seeds that are none, repeated or the grid's own, no optuna, or
            no trial that worked.
        Diverged: a training led to NaN.
    """
    setup = grid.single()
    start, space = _start(method_name, setup)
    seeds = _checked(trials, tuning_seeds, grid)
    optuna = load_extra("optuna", "optuna", "tune", "tuning")
    if numerics is None:
        numerics = Numerics.choose(None, grid.data.load("cpu").shape[1])
    cases_total = len(grid.tasks) * len(seeds)
    recipe = setup.recipe.prepared(start.preparation)
    each = start.typical_epochs(recipe) + 0.2
    clock = Clock(report, cases_total * (recipe.epochs * (2 if oracle else 1) + trials * each))
    cases = Trials(start, grid, recipe, seeds, numerics, oracle=oracle, clock=clock)
    sampler = _Sampler(optuna, space, seed)
    done: list[Trial] = []
    interrupted = False
    for number in range(trials):
        settings = sampler.propose() if number else {name: getattr(start, name) for name in space}
        try:
            trial = cases.run(number, settings, each, trials)
        except KeyboardInterrupt:
            if not any(trial.status == "done" for trial in done):
                raise
            interrupted = True
            break
        sampler.learn(settings, trial.score)
        done.append(trial)
        clock.best = max(trial.score for trial in done)
    clock.say("")
    worked = [trial for trial in done if trial.status == "done"]
    if not worked:
        raise InvalidInput(
            f"none of the {len(done)} trials of {method_name!r} worked; the first one failed with: {done[0].error}"
        )
    best = max(worked, key=lambda trial: trial.score)
    method, rule = dataclasses.replace(start, **best.settings), ORACLE_RULE if oracle else RULE
    return Tuned(method, best, tuple(done), rule, interrupted)


class _Sampler:
    """Optuna's TPE through ask and tell; the first settings it learns of are the untuned ones, not its own."""

    def __init__(self, optuna: ModuleType, space: Mapping[str, Search], seed: int) -> None:
        self._optuna, self._space = optuna, space
        self._trial: Any = None
        made = optuna.distributions
        self._distributions = {
            name: made.IntDistribution(search.low, int(search.high), log=search.log)
            if isinstance(search.low, int)
            else made.FloatDistribution(search.low, search.high, log=search.log)
            for name, search in space.items()
        }
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study otherwise
        try:
            sampler = optuna.samplers.TPESampler(seed=seed)
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def propose(self) -> dict[str, Any]:
        """Return a value for every searched setting."""
        self._trial = self._study.ask(self._distributions)
        return dict(self._trial.params)

    def learn(self, settings: Mapping[str, Any], score: float) -> None:
        """Let the sampler know the score of what it proposed last, or of the untuned settings before that."""
        if self._trial is not None:
            self._study.tell(self._trial, score)
        elif all(
            isinstance(settings[name], int | float) and search.low <= settings[name] <= search.high
            for name, search in self._space.items()
        ):  # the sampler knows nothing outside its ranges
            untuned = self._optuna.trial.create_trial(
                params=dict(settings), distributions=self._distributions, value=score
            )
            self._study.add_trial(untuned)


def _start(name: str, setup: Setup) -> tuple[Method, dict[str, Search]]:
    """Return the method with the settings it has without tuning, and what is searched."""
    start = load_method(name)
    start = next((method for method in setup.methods if type(method) is type(start)), start)
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
