from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.retrain_corrected import RetrainCorrected
from expunge.metrics.forgetting_quality import forgetting_quality
from expunge.metrics.klom import klom
from expunge.metrics.ulira import leave_one_out
from expunge.populations.assess import PopulationReport, assess_population
from expunge.populations.population import (
    PopulationSettings,
    Scores,
    draw_halves,
    draw_retrained,
    draw_whole,
    inside,
)
from expunge.store.weights import WeightStore
from expunge.tasks.forgetting import ForgetRandom
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)
# Labels of a third of the images are noise: an example can only be right where it was memorised.
DATA = learnable_images(n_train=120, n_test=40, n_classes=4)
NOISY = replace(
    DATA, train_labels=torch.where(torch.arange(120) % 3 == 0, (DATA.train_labels + 1) % 4, DATA.train_labels)
)
PROBLEM = ForgetRandom(share=0.2).build(NOISY)
RECIPE = Recipe(
    model="mlp", model_settings={"hidden": 32, "activation": "relu"}, epochs=10, batch_size=16, augment=False,
    optimiser=Optimiser(lr=0.1),
)  # fmt: skip
SETTINGS = PopulationSettings(recipe=RECIPE, n_models=20, vulnerable=0.25)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    return WeightStore(tmp_path_factory.mktemp("population"))


def assess(method: Any, store: WeightStore, **changes: Any) -> PopulationReport:
    return assess_population(method, PROBLEM, replace(SETTINGS, **changes), store, numerics=CPU, workers=1)


@pytest.fixture(scope="module")
def untouched(store: WeightStore) -> PopulationReport:
    """The report of a method that unlearns nothing."""
    return assess(NoUnlearning(), store)


def test_what_is_made_and_what_is_shared(store: WeightStore, untouched: PopulationReport) -> None:
    assert (untouched.trained, untouched.unlearned) == (3 * 20, 2 * 20)
    again = assess(NoUnlearning(), store)
    assert (again.trained, again.unlearned) == (0, 0)
    assert again.values == untouched.values
    other = assess(FineTune(epochs=1, batch_size=16, augment=False), store)
    assert (other.trained, other.unlearned) == (0, 2 * 20)
    assert list(other.values) == list(untouched.values)
    assert other.values != untouched.values


@pytest.mark.trains
def test_no_unlearning_is_found_out(untouched: PopulationReport, margin: Callable[..., None]) -> None:
    values = untouched.values
    assert list(values) == [
        "ulira_accuracy", "ulira_auc", "ulira_auc_p95", "ulira_tpr_at_1_percent", "klom_forget", "klom_retain",
        "klom_validation", "forgetting_quality", "final_score", "ruli_privacy_auc", "ruli_efficacy_auc",
    ]  # fmt: skip
    for name in ("ulira_accuracy", "ulira_auc", "ruli_privacy_auc", "ruli_efficacy_auc", "klom_forget"):
        value, low, comparable, floor = (
            getattr(values[name], part) for part in ("value", "low", "comparable", "floor")
        )
        margin(name, comparable - floor, above=0.1)
        assert low <= value <= values[name].high
    for name in ("forgetting_quality", "final_score"):
        assert values[name].comparable < values[name].floor
    # The easiest targets are easier than the mean, and no value leaves its range.
    assert values["ruli_privacy_auc"].value >= values["ulira_auc"].value
    assert all(entry.high <= 1 for name, entry in values.items() if not name.startswith("klom"))
    assert all(entry.low >= 0 for entry in values.values())


def test_values_are_those_of_the_stored_scores(store: WeightStore, untouched: PopulationReport) -> None:
    """Read back by their keys, compared by the metrics' own functions."""
    forget = PROBLEM.split.forget_positions

    def scores(members: list[Any], method: Any) -> Scores:
        return Scores.load(store, [member.scores_key(method) for member in members])

    unlearned = scores(draw_whole(PROBLEM, SETTINGS, CPU), NoUnlearning()).margins
    retrained = scores(draw_retrained(PROBLEM, SETTINGS, CPU), None).margins
    retain = (~PROBLEM.split.forget_mask).nonzero().flatten()
    for name, columns in (("forget", forget), ("retain", retain), ("validation", torch.arange(120, 160))):
        expected = klom(unlearned[:, columns], retrained[:, columns])
        entry = untouched.values[f"klom_{name}"]
        assert entry.value == pytest.approx(float(expected.quantile(0.95)))
        floor = klom(retrained[10:][:, columns], retrained[:10][:, columns])
        assert entry.floor == pytest.approx(float(floor.quantile(0.95)))
        half = klom(unlearned[:10][:, columns], retrained[:10][:, columns])
        assert entry.comparable == pytest.approx(float(half.quantile(0.95)))
    quality = untouched.values["forgetting_quality"]
    assert quality.value == forgetting_quality(unlearned[:, forget], retrained[:, forget])
    assert quality.floor == forgetting_quality(retrained[10:][:, forget], retrained[:10][:, forget])
    halves = (torch.arange(20) < 10)[:, None].expand(20, len(forget))
    floor = leave_one_out(retrained[:, forget], halves)
    assert untouched.values["ulira_auc"].floor == pytest.approx(float(floor.auc.mean()))
    parts = draw_halves(PROBLEM, SETTINGS, CPU)
    attack = leave_one_out(scores(parts, NoUnlearning()).margins[:, forget], inside(parts, forget))
    assert untouched.values["ulira_auc"].value == pytest.approx(float(attack.auc.mean()))


def test_a_rate_that_cannot_be_resolved_has_a_reason(tmp_path: Path) -> None:
    few = ForgetRandom(share=0.03).build(NOISY)
    quick = replace(SETTINGS, recipe=replace(RECIPE, epochs=1), n_models=16)
    report = assess_population(NoUnlearning(), few, quick, WeightStore(tmp_path), numerics=CPU, workers=1)
    entry = report.values["ulira_tpr_at_1_percent"]
    assert entry.value is None
    assert "a false positive rate of 0.01 needs at least 100 non-members" in entry.because


def test_refusals(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "none")
    with pytest.raises(InvalidInput, match="reads the truth about the data"):
        assess(RetrainCorrected(), store)
    with pytest.raises(InvalidInput, match=r"at least 3 models on each side .* train more models"):
        assess(NoUnlearning(), store, n_models=8)
    assert not (tmp_path / "none").exists()
