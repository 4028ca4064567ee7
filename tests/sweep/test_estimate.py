from __future__ import annotations

import pytest
import torch

import expunge.sweep.estimate as module
from expunge.methods.finetune import FineTune
from expunge.methods.mnemonic_code import MnemonicCode
from expunge.methods.no_unlearning import NoUnlearning
from expunge.sweep.estimate import estimate_seconds, images_per_second
from expunge.sweep.plan import DataChoice, Plan, Training, make_plan
from expunge.tasks.forgetting import ForgetClasses
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

NUMERICS = Numerics(channels_last=False)
RECIPE = Recipe(epochs=4, batch_size=32, augment=False, model_settings={"width": 4})


@pytest.fixture(scope="module")
def plan(easy: DataChoice) -> Plan:
    methods = (NoUnlearning(), FineTune(epochs=3), MnemonicCode())
    return make_plan(easy, (ForgetClasses(classes=(1,)),), RECIPE, methods, (0, 1), NUMERICS)


def test_the_sum_of_the_work(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Training] = []

    def speed(training: Training) -> float:
        asked.append(training)
        # 96 images: an epoch is two seconds, or four with codes
        return 48.0 if training.recipe.codes is None else 24.0

    monkeypatch.setattr(module, "images_per_second", speed)
    threads = torch.get_num_threads()
    measuring = (96 + 2 * 64) / 3 / 96
    plain = 2 * ((4 + measuring + 3 + measuring) * 2)
    coded = 2 * ((4 + measuring) * 4)
    assert estimate_seconds(plan, (), 1) == pytest.approx(plain + coded)
    assert len(asked) == 2  # once for each recipe
    assert torch.get_num_threads() == threads
    assert estimate_seconds(plan, (), 2) == pytest.approx((plain + coded) / 2)
    # more workers than there is to share
    assert estimate_seconds(plan, (), 100) == pytest.approx((4 + measuring) * 4)
    trained = {training.key for training in plan.trainings if training.recipe.codes is None}
    assert estimate_seconds(plan, trained, 1) == pytest.approx(plain + coded - 2 * 4 * 2)
    assert estimate_seconds(Plan((), ()), (), 1) == 0


def test_timing_draws_nothing_that_training_draws(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    state = torch.random.get_rng_state()
    assert all(images_per_second(training) > 0 for training in plan.trainings)
    assert torch.equal(state, torch.random.get_rng_state())
