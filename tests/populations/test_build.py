from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from expunge.data.synthetic import learnable_images
from expunge.engine import WorkerLost
from expunge.errors import Diverged, ExpungeError, StoreError
from expunge.methods.base import Method
from expunge.methods.finetune import FineTune
from expunge.methods.request import Needs, Request
from expunge.metrics.attack_scores import confidence, logit_gap
from expunge.populations import build
from expunge.populations.build import Crew, Setting, train_members, unlearn_members
from expunge.populations.population import Member, PopulationSettings, Scores, draw_halves, draw_retrained
from expunge.seeding import derive_seed, generator
from expunge.tasks.base import Split
from expunge.tasks.forgetting import ForgetRandom
from expunge.training.cost import Meter
from expunge.training.loop import predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)
RECIPE = Recipe(
    model="mlp", model_settings={"hidden": 8}, epochs=2, batch_size=16, augment=False,
    optimiser=Optimiser(lr=0.1),
)  # fmt: skip
# a ViT of this size does not stack: each trains alone
ALONE = replace(
    RECIPE,
    model="vit",
    model_settings={"patch": 4, "dim": 8, "mlp": 8, "depth": 1, "heads": 2, "dim_head": 4},
)
PROBLEM = ForgetRandom(share=0.2).build(learnable_images(n_train=60, n_test=12))


def setting(folder: Path, recipe: Recipe = RECIPE) -> Setting:
    return Setting(PROBLEM, recipe, CPU, folder)


def one(folder: Path, recipe: Recipe = RECIPE) -> Crew:
    return Crew(setting(folder, recipe), workers=1)


def members(recipe: Recipe = RECIPE, count: int = 8) -> list[Member]:
    return draw_halves(PROBLEM, PopulationSettings(recipe=recipe, n_models=count), CPU)


def alone(member: Member, recipe: Recipe) -> nn.Module:
    model = recipe.build(PROBLEM.shape, PROBLEM.n_classes, generator(member.seed, "initialisation"))
    return recipe.train(model, PROBLEM.split.train.select(member.positions), member.seed, CPU, _meter())


def _meter() -> Meter:
    with Meter() as meter:
        return meter


@pytest.mark.parametrize(("recipe", "tolerance"), [(ALONE, 0.0), (RECIPE, 1e-4)], ids=["alone", "stacked"])
def test_each_member_is_the_model_its_recipe_trains(tmp_path: Path, recipe: Recipe, tolerance: float) -> None:
    given = members(recipe)
    assert train_members(one(tmp_path, recipe), given, keep_weights=True) == 8
    found = setting(tmp_path, recipe)
    scores = Scores.load(found.store, [member.scores_key(None) for member in given])
    assert scores.margins.shape == scores.confidences.shape == scores.right.shape == (8, 60 + 12)
    assert scores.margins.dtype == scores.confidences.dtype == torch.float32
    for row in (0, 7):
        expected = Scores.of(alone(given[row], recipe), PROBLEM, CPU)
        torch.testing.assert_close(scores.margins[row], expected.margins[0], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            scores.confidences[row], expected.confidences[0], rtol=tolerance, atol=tolerance
        )
    assert not torch.allclose(scores.margins[0], scores.margins[1], atol=1e-2)


def test_scores_are_of_stored_and_of_test_labels() -> None:
    model = alone(members()[0], RECIPE)
    scores = Scores.of(model, PROBLEM, CPU)
    train, test = PROBLEM.split.train, PROBLEM.truth.sets["test"]
    for part, columns in ((train, slice(0, 60)), (test, slice(60, 72))):
        logits = predict(model, part, CPU)
        assert torch.equal(scores.margins[0, columns], logit_gap(logits, part.labels).float())
        assert torch.equal(scores.confidences[0, columns], confidence(logits, part.labels).float())
        assert torch.equal(scores.right[0, columns], logits.argmax(1) == part.labels)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="has logits that are not finite"):
        Scores.of(model, PROBLEM, CPU)


def test_a_second_call_makes_nothing_and_more_models_only_the_new_ones(tmp_path: Path) -> None:
    here, given, method = one(tmp_path), members(), FineTune(epochs=1, batch_size=16, augment=False)
    assert train_members(here, given, keep_weights=True) == 8
    assert unlearn_members(here, given, method) == 8
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert train_members(here, given, keep_weights=True) == 0
    assert unlearn_members(here, given, method) == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert train_members(here, members(count=10), keep_weights=True) == 2
    assert unlearn_members(here, given, replace(method, lr=0.5)) == 8


def test_weights_are_made_where_only_scores_are_stored(tmp_path: Path) -> None:
    given = draw_retrained(PROBLEM, PopulationSettings(recipe=RECIPE, n_models=8), CPU)
    assert train_members(one(tmp_path), given, keep_weights=False) == 8
    assert len(list(tmp_path.iterdir())) == 8
    with pytest.raises(StoreError, match="there are no weights"):
        unlearn_members(one(tmp_path), given, FineTune())
    assert train_members(one(tmp_path), given, keep_weights=True) == 8
    assert train_members(one(tmp_path), given, keep_weights=False) == 0


def test_an_interrupted_building_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LARGEST", 3)
    given = members()

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_members(one(tmp_path), given, keep_weights=True, progress=stop)
    assert train_members(one(tmp_path), given, keep_weights=True) == 2
    whole = one(tmp_path / "whole")
    train_members(whole, given, keep_weights=True)
    keys = [member.scores_key(None) for member in given]
    # The last two are in a stack of another size.
    torch.testing.assert_close(
        Scores.load(setting(tmp_path).store, keys).margins,
        Scores.load(whole.setting.store, keys).margins,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    method = FineTune(epochs=1, batch_size=16, augment=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = []
        for workers in (1, 2):
            here = setting(tmp_path / str(workers), ALONE)
            shares: list[float] = []
            given = members(ALONE)[:3]
            with Crew(here, workers) as crew:
                train_members(crew, given, keep_weights=True, progress=shares.append)
                assert unlearn_members(crew, given, method) == 3
            assert shares == pytest.approx([1 / 3, 2 / 3, 1])
            found.append(Scores.load(here.store, [member.scores_key(method) for member in given]).margins)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])


@dataclass(frozen=True, kw_only=True)
class Recording(Method):
    """Unlearns nothing and shows what it was given."""

    name = "recording"
    needs = Needs.FORGET | Needs.RETAIN | Needs.RECIPE

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        SEEN.append((request.forget.index, request.retain.index, request.seed))
        return model


SEEN: list[tuple[torch.Tensor, torch.Tensor, int]] = []


def test_a_method_sees_its_own_model_s_part(tmp_path: Path) -> None:
    given = members()[:2]
    train_members(one(tmp_path), given, keep_weights=True)
    unlearn_members(one(tmp_path), given, Recording())
    for (forget, retain, seed), member in zip(SEEN, given, strict=True):
        assert torch.equal(forget, member.forget)
        assert sorted([*forget.tolist(), *retain.tolist()]) == member.positions.tolist()
        assert seed == derive_seed(member.seed, "unlearning")
    store = setting(tmp_path).store
    before, after = (Scores.load(store, [given[0].scores_key(method)]) for method in (None, Recording()))
    assert torch.equal(before.margins, after.margins)


def test_unlearned_scores_are_those_of_the_method(tmp_path: Path) -> None:
    member, method = members()[0], FineTune(epochs=1, batch_size=16, augment=False)
    here = one(tmp_path)
    train_members(here, [member], keep_weights=True)
    unlearn_members(here, [member], method)
    part = PROBLEM.split.train.select(member.positions)
    split = Split(part, torch.isin(member.positions, member.forget).nonzero().flatten())
    request = Request(split, seed=derive_seed(member.seed, "unlearning"), numerics=CPU)
    expected = Scores.of(method(alone(member, RECIPE), request).model, PROBLEM, CPU)
    assert torch.equal(Scores.load(here.setting.store, [member.scores_key(method)]).margins, expected.margins)


class Losing:
    """An engine whose workers end."""

    slots = 2

    def __init__(self, workers: int) -> None:
        assert workers == 2

    def submit(self, task: object, *args: object) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(WorkerLost("the worker process ended"))
        return future

    def close(self) -> None:
        pass


def test_a_worker_that_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LocalEngine", Losing)
    with (
        pytest.raises(
            ExpungeError, match=r"a worker process ended .* the models that are finished are stored"
        ),
        Crew(setting(tmp_path, ALONE), 2) as crew,
    ):
        train_members(crew, members(ALONE), keep_weights=True)


def test_a_model_that_diverges_says_so(tmp_path: Path) -> None:
    wild = replace(
        RECIPE, model_settings={"hidden": 8, "activation": "relu"}, optimiser=Optimiser(lr=1e9), epochs=4
    )
    with pytest.raises(Diverged, match="training a population of mlp: the training loss became"):
        train_members(one(tmp_path, wild), members(wild), keep_weights=True)
