from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.errors import Diverged, InvalidInput, UnknownName
from expunge.methods.base import Method, Needs, Request, searched
from expunge.sweep.grid import Grid, Setup
from expunge.sweep.plan import DataChoice
from expunge.sweep.trials import hold_out, validation_for
from expunge.sweep.tune import Tuned, tune
from expunge.tasks.base import Task
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetHardest, ForgetIndices, ForgetRandom, ForgetSubclass
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

TOY = f"{__name__}:Toy"
CPU = Numerics("cpu")
RECIPE = Recipe(
    model="expunge.models.mlp:MLP",
    model_settings={"hidden": 16, "activation": "relu"},
    epochs=10,
    batch_size=16,
    optimiser=Optimiser(lr=0.05),
    augment=False,
)
SEEN: list[tuple[float, int]] = []


@dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """Lower the forgotten classes' bias by ``push``, and everything else's sense by ``harm``."""

    name = "toy"
    needs = Needs.FORGET | Needs.RETAIN

    push: float = searched(0.5, 0.1, 100.0, log=True)
    steps: int = searched(2, 1, 4)
    fixed: bool = False
    breaks_above: float = 1e9

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        SEEN.append((self.push, self.steps))
        if self.push > self.breaks_above:
            raise Diverged("the loss became inf")
        forget = request.forget.labels.unique()
        model.get_parameter("head.bias").data[forget] -= self.push * self.steps
        request.meter.count(10)
        return model


@dataclass(frozen=True, kw_only=True)
class Greedy(Toy):
    """A method that wants unseen images."""

    name = "greedy"
    needs = Needs.FORGET | Needs.UNSEEN

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        SEEN.append((float(len(request.unseen)), 0))
        return model


@dataclass(frozen=True, kw_only=True)
class Cheat(Toy):
    """A method that wants the truth."""

    name = "cheat"
    needs = Needs.TRUTH


def make_grid(easy: DataChoice, *tasks: Task, **settings: Any) -> Grid:
    setup = Setup(RECIPE, (Toy(**settings),))
    return Grid(easy, tasks or (ForgetClasses(classes=(1,)),), (setup,), (0, 1))


def quick(grid: Grid, name: str = TOY, **options: Any) -> Tuned:
    return tune(name, grid, **{"trials": 6, "tuning_seeds": (100,), "numerics": CPU, **options})


def comparable(tuned: Tuned) -> list[tuple[Mapping[str, Any], float]]:
    return [(trial.settings, trial.score) for trial in tuned.trials]


@pytest.mark.trains
def test_the_best_trial_is_the_best_and_the_first_is_untuned(easy: DataChoice) -> None:
    SEEN.clear()
    shares: list[float] = []
    tuned = quick(
        make_grid(easy, push=0.2, fixed=True),
        trials=9,
        tuning_seeds=(100, 101),
        report=lambda share, _: shares.append(share),
    )
    assert tuned.trials[0].settings == {"push": 0.2, "steps": 2}
    assert SEEN[:2] == [(0.2, 2)] * 2
    assert len(SEEN) == 9 * 2
    assert len(tuned.trials) == tuned.budget["trials"] == 9
    assert tuned.budget["sample_gradients"] == 9 * 2 * 10
    assert tuned.budget["seconds"] > 0
    assert tuned.best.score == max(trial.score for trial in tuned.trials) > tuned.trials[0].score
    assert tuned.method == Toy(fixed=True, **tuned.best.settings)
    assert tuned.best.score == pytest.approx(
        1.0, abs=0.1
    )  # a far lower bias removes the class and costs nothing
    assert all(
        0.1 <= trial.settings["push"] <= 100 and trial.settings["steps"] in range(1, 5)
        for trial in tuned.trials
    )
    assert "ORACLE" not in tuned.rule
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_a_seed_decides_the_trials(easy: DataChoice) -> None:
    grid = make_grid(easy)
    first = quick(grid, trials=4)
    assert comparable(quick(grid, trials=4)) == comparable(first)
    other = quick(grid, trials=4, seed=1)
    assert other.trials[0] == dataclasses.replace(first.trials[0], seconds=other.trials[0].seconds)
    assert comparable(other) != comparable(first)


def test_the_test_set_has_no_influence(easy: DataChoice, tmp_path: Path) -> None:
    content = dict(np.load(easy.name))
    content["test_images"] = 255 - content["test_images"][:7]
    content["test_labels"] = np.array([3, 3, 3, 2, 0, 1, 0])
    np.savez(tmp_path / "easy.npz", **content)
    corruption = CorruptionTask(n_corrupted=8, patch=2, swap_classes=(1, 2), regularity=0.75)
    tasks = (ForgetClasses(classes=(1,)), ForgetRandom(share=0.1), corruption)
    one = quick(make_grid(easy, *tasks), trials=3)
    other = quick(make_grid(DataChoice(str(tmp_path / "easy.npz")), *tasks), trials=3)
    assert comparable(one) == comparable(other)


@pytest.mark.parametrize("oracle", [False, True])
def test_the_truth_is_never_read(easy: DataChoice, monkeypatch: pytest.MonkeyPatch, oracle: bool) -> None:
    class Forbidden:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"the truth was read: {name}")

    for kind in (ForgetRandom, CorruptionTask):
        build = kind.build

        def hidden(self: Any, data: Any, difficulty: Any = None, build: Any = build) -> Any:
            assert len(data.test_images) == 1
            assert not data.test_images.any()
            return dataclasses.replace(build(self, data, difficulty), truth=Forbidden())

        monkeypatch.setattr(kind, "build", hidden)
    tasks = (ForgetRandom(share=0.1), CorruptionTask(n_corrupted=8, patch=2, discovery=0.5, regularity=1.0))
    assert quick(make_grid(easy, *tasks), trials=2, oracle=oracle).budget["trials"] == 2


@pytest.mark.trains
def test_an_oracle_is_labelled_and_nears_the_retrained_model(easy: DataChoice) -> None:
    tuned = quick(make_grid(easy, push=0.1), oracle=True, trials=8)
    assert tuned.rule.startswith("ORACLE")
    assert -1 <= tuned.trials[0].score < tuned.best.score <= 0
    assert tuned.best.score == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("oracle", [False, True])
def test_a_trial_that_diverges_does_not_end_the_study(easy: DataChoice, oracle: bool) -> None:
    tuned = quick(make_grid(easy, breaks_above=1.0), trials=8, oracle=oracle)
    failed = [trial for trial in tuned.trials if trial.status == "failed"]
    assert failed
    assert len(tuned.trials) == 8
    assert all(trial.score == (-1 if oracle else 0) and "Diverged" in trial.error for trial in failed)
    assert tuned.best.status == "done"
    assert tuned.best.settings["push"] <= 1.0


def test_a_study_in_which_nothing_works(easy: DataChoice) -> None:
    with pytest.raises(InvalidInput, match=r"none of the 2 trials .* worked.*Diverged: the loss became inf"):
        quick(make_grid(easy, breaks_above=0.0), trials=2)


def test_an_interruption_keeps_the_finished_trials(easy: DataChoice) -> None:
    def interrupt(_: float, doing: str) -> None:
        if doing.startswith("trial 4"):
            raise KeyboardInterrupt

    tuned = quick(make_grid(easy), trials=5, report=interrupt)
    whole = quick(make_grid(easy), trials=3)
    assert tuned.interrupted
    assert not whole.interrupted
    assert comparable(tuned) == comparable(whole)
    assert (tuned.best.settings, tuned.best.score) == (whole.best.settings, whole.best.score)


def test_an_interruption_before_a_trial_is_finished(easy: DataChoice) -> None:
    def interrupt(_: float, doing: str) -> None:
        if doing.startswith("trial"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(make_grid(easy), report=interrupt)


def test_several_recipes(easy: DataChoice) -> None:
    grid = make_grid(easy)
    with pytest.raises(InvalidInput, match="one recipe is expected, but the grid has 2"):
        quick(dataclasses.replace(grid, setups=grid.setups * 2))


def test_defaults_outside_the_range_are_tried_as_they_are(easy: DataChoice) -> None:
    assert quick(make_grid(easy, push=0.01), trials=2).trials[0].settings["push"] == 0.01


def test_every_kind_of_task(easy: DataChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    load = DataChoice.load

    def with_fine(self: DataChoice, device: str) -> Any:
        data = load(self, device)
        fine = 2 * data.train_labels + torch.arange(len(data.train_labels)) // 4 % 2
        return dataclasses.replace(data, train_fine=fine, test_fine=2 * data.test_labels)

    monkeypatch.setattr(DataChoice, "load", with_fine)
    tasks = (ForgetHardest(share=0.05), ForgetIndices(indices=tuple(range(12))), ForgetSubclass(fine=3))
    grid = make_grid(easy, *tasks)
    tuned = quick(grid, trials=2)
    assert all(0 < trial.score <= 1 for trial in tuned.trials)

    images, kept, fine = hold_out(grid, "cpu")
    assert kept is not None
    assert fine is not None
    assert images.unseen_labels is not None
    assert len(images.unseen_labels) == 10
    assert torch.equal(fine // 2, images.unseen_labels)
    assert images.train_fine is not None
    assert torch.equal(images.train_fine // 2, images.train_labels)
    original = load(easy, "cpu")
    indices = tasks[1].renumbered(kept)
    assert isinstance(indices, ForgetIndices)
    assert 0 < len(indices.indices) <= 12
    assert torch.equal(kept[list(indices.indices)], kept[kept < 12])
    assert torch.equal(images.train_images[list(indices.indices)], original.train_images[kept[kept < 12]])
    validation = validation_for(Toy(), tasks[2], images, fine)
    assert validation.siblings is not None
    assert set(validation.siblings.labels.tolist()) == {1}
    assert len(validation.kept) == 10 - int((fine == 3).sum())


def test_indices_that_are_all_held_out(easy: DataChoice) -> None:
    _, kept, _ = hold_out(make_grid(easy), "cpu")
    assert kept is not None
    apart = next(number for number in range(96) if number not in kept.tolist())
    with pytest.raises(InvalidInput, match=r"all 1 indices .* are among the validation images"):
        quick(make_grid(easy, ForgetIndices(indices=(apart,))))


def test_a_method_that_reads_unseen_images_is_scored_on_others(easy: DataChoice) -> None:
    SEEN.clear()
    choice = dataclasses.replace(easy, n_unseen=20)
    setups = (Setup(RECIPE, (Greedy(),)),)
    grid = dataclasses.replace(make_grid(choice, ForgetRandom(share=0.1)), setups=setups)
    quick(grid, f"{__name__}:Greedy", trials=1)
    assert SEEN == [(8.0, 0)]  # of five images a class, two are given and three are kept
    images, kept, _ = hold_out(grid, "cpu")
    assert kept is None
    assert images.unseen_images is not None
    assert torch.equal(images.train_images, choice.load("cpu").train_images)
    validation = validation_for(Greedy(), grid.tasks[0], images, None)
    assert validation.given is not None
    assert not set(validation.given.index.tolist()) & set(validation.kept.index.tolist())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none", {}, r"method 'none' has no searched settings.*tune one of: .*natmu"),
        (TOY, {"trials": 0}, "trials must be at least 1, got 0"),
        (TOY, {"tuning_seeds": (1,)}, "tuning seed 1 is also a seed of the grid"),
        (TOY, {"tuning_seeds": (7, 7)}, "each given once"),
        (TOY, {"tuning_seeds": ()}, "at least one"),
        (f"{__name__}:Cheat", {}, "is an oracle: it reads the truth"),
    ],
)
def test_what_cannot_be_tuned(easy: DataChoice, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        quick(make_grid(easy), name, **options)


def test_a_near_miss(easy: DataChoice) -> None:
    with pytest.raises(UnknownName, match="unknown method 'natmuu'; did you mean 'natmu'"):
        quick(make_grid(easy), "natmuu")


def test_without_optuna(easy: DataChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InvalidInput, match=r"pip install 'expunge\[tune\]'"):
        quick(make_grid(easy))
