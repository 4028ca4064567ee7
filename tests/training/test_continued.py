from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.data.images import Augmentation, ImageSource
from expunge.data.joined import in_memory, join
from expunge.errors import Diverged, InvalidInput
from expunge.seeding import generator
from expunge.training import continued as module
from expunge.training.continued import Continued, completed, continued
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, PartialRecipe, Recipe, rate_known

NUMERICS = Numerics(channels_last=False)
RECIPE = Recipe(
    batch_size=48, optimiser=Optimiser(name="adam", lr=0.003, momentum=0.5, weight_decay=0.02), augment=True
)
DATA = in_memory(torch.randn(80, 3, generator=generator(0)), torch.arange(80) % 2, 2)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def images(**augmentation: Any) -> Examples:
    pixels = torch.randint(0, 256, (80, 1, 2, 2), dtype=torch.uint8, generator=generator(0))
    return Examples.all_of(ImageSource(pixels, (0.5,), (0.5,), Augmentation(**augmentation)), DATA.labels, 2)


def found(
    model: nn.Module | None = None, recipe: Recipe | None = None, data: Examples = DATA, **given: Any
) -> Continued:
    settings: dict[str, Any] = {
        "optimiser": None, "lr": None, "momentum": 0.9, "weight_decay": None, "batch_size": None, "augment": None,
        **given,
    }  # fmt: skip
    with Meter() as meter:
        return continued(
            model or plain(), data, NUMERICS, recipe, generator=generator(3), meter=meter, **settings
        )


def test_all_comes_from_the_recipe() -> None:
    how = found(recipe=RECIPE)
    assert how.optimiser == RECIPE.optimiser
    assert how.batch_size == 48
    assert how.why == "as in the first training"


def test_augmented_is_what_augmentation_changes() -> None:
    crops, same = images(pad=1), images()
    for data, expected in (
        (crops, True),
        (same, False),
        (DATA, False),
        (join(same, crops), True),
        (join(same), False),
    ):
        assert found(recipe=RECIPE, data=data).augment is expected
        assert found(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), lr=0.1, augment=True, data=crops).augment
    assert not found(recipe=RECIPE, data=join(crops, same, augment=[False, True])).augment


def test_what_is_given_comes_before_the_recipe() -> None:
    how = found(recipe=RECIPE, lr=0.5, weight_decay=0.0, batch_size=7, augment=False, optimiser="adam")
    assert how.optimiser == Optimiser(name="adam", lr=0.5, momentum=0.5, weight_decay=0.0)
    assert (how.batch_size, how.augment) == (7, False)


def test_another_optimiser_does_not_get_the_recipe_s_rate() -> None:
    how = found(recipe=RECIPE, optimiser="sgd")
    assert how.optimiser.name == "sgd"
    assert how.optimiser.lr in module._RATES["sgd"]
    assert how.optimiser.weight_decay == module._DECAY["sgd"]
    assert how.batch_size == 48


@pytest.mark.parametrize(("make", "name"), [(plain, "adamw"), (normalised, "sgd")])
def test_without_a_recipe_the_network_s_kind_decides(make: Any, name: str) -> None:
    how = found(make())
    assert how.optimiser.name == name
    assert how.optimiser.lr in module._RATES[name]
    assert not how.augment
    assert "tried on retained examples" in how.why


def test_a_given_rate_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("a rate was tried"))
    how = found(lr=0.7, optimiser="sgd")
    assert how.optimiser.lr == 0.7
    assert how.why == "as was asked for"


@pytest.mark.parametrize(("survives", "chosen"), [(0.1, 0.1), (0.01, 0.01), (0.0015, 0.001), (0.0, 0.001)])
def test_the_highest_rate_that_keeps_the_accuracy_else_the_lowest(
    monkeypatch: pytest.MonkeyPatch, survives: float, chosen: float
) -> None:
    model = plain()
    with torch.no_grad():
        labels = model(next(DATA.batches(80)).x).argmax(1)
    data = DATA.relabel(labels)
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setitem(module._RATES, "sgd", (0.1, 0.03, 0.01, 0.003, 0.001))

    def spoil(trial: nn.Module, *given: Any) -> float:
        rate = given[2].param_groups[0]["lr"]
        if rate > 0.05 and survives < rate:
            raise Diverged("NaN")
        if rate > survives:
            with torch.no_grad():
                for parameter in trial.parameters():
                    parameter.zero_()
                trial[2].bias[int(labels.double().mean() < 0.5)] = 1.0  # the rarer label for all
        return 0.0

    monkeypatch.setattr(module, "fit", spoil)
    with Meter() as meter:
        how = continued(
            model, data, NUMERICS, None, optimiser="sgd", lr=None, momentum=0.9, weight_decay=None,
            batch_size=None, augment=None, generator=generator(3), meter=meter,
        )  # fmt: skip
    assert how.optimiser.lr == chosen
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_trial_s_gradients_are_counted() -> None:
    with Meter() as meter:
        continued(
            plain(), DATA, NUMERICS, None, optimiser=None, lr=None, momentum=0.9, weight_decay=None,
            batch_size=16, augment=None, generator=generator(3), meter=meter,
        )  # fmt: skip
    assert meter.sample_gradients > 0
    assert meter.sample_gradients % (module._STEPS * 16) == 0


@pytest.mark.parametrize("recipe", [RECIPE, None])
def test_everything_frozen(recipe: Recipe | None) -> None:
    with pytest.raises(InvalidInput, match=r"every parameter is frozen.*unfreeze the last layers at least"):
        found(plain().requires_grad_(False), recipe)


@pytest.mark.parametrize(
    ("stated", "given", "model", "expected"),
    [
        ((), {}, plain, ("adamw", 1e-3, 0.01)),
        ((), {}, normalised, ("sgd", 0.025, 5e-4)),
        (("optimiser.name",), {"name": "adam"}, normalised, ("adam", 1e-3, 0.0)),
        (("optimiser.lr",), {"lr": 2e-5}, plain, ("adamw", 2e-5, 0.01)),
        (("optimiser.lr",), {"lr": 0.05}, plain, ("sgd", 0.05, 5e-4)),  # nobody runs Adam at so much
        (("optimiser.weight_decay",), {"weight_decay": 0.3}, plain, ("adamw", 1e-3, 0.3)),
    ],
)
def test_what_nobody_stated_is_usual_for_the_network(
    stated: tuple[str, ...], given: dict[str, Any], model: Any, expected: tuple[str, float, float]
) -> None:
    recipe = PartialRecipe(epochs=7, optimiser=Optimiser(**given), stated=("epochs", *stated))
    made = completed(recipe, model())
    assert (made.optimiser.name, made.optimiser.lr, made.optimiser.weight_decay) == expected
    assert made.epochs == 7
    assert rate_known(made) == ("optimiser.lr" in stated)


def test_a_rate_that_nobody_stated_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_highest", lambda *_: 0.25)
    recipe = PartialRecipe(batch_size=24, augment=False, stated=("epochs", "batch_size"))
    how = found(recipe=recipe)
    assert (how.optimiser.name, how.optimiser.lr, how.batch_size, how.follows) == ("adamw", 0.25, 24, False)
    decay = PartialRecipe(optimiser=Optimiser(weight_decay=0.3), stated=("optimiser.weight_decay",))
    assert found(recipe=decay).optimiser == Optimiser(name="adamw", lr=0.25, weight_decay=0.3)
    stated = found(recipe=PartialRecipe(optimiser=Optimiser(lr=0.3), stated=("optimiser.lr",)))
    assert (stated.optimiser.lr, stated.follows) == (0.3, True)
    assert completed(RECIPE, plain()) is RECIPE


def test_a_partial_recipe_as_one_that_is_followed() -> None:
    recipe = PartialRecipe(epochs=3, stated=("epochs",)).plain()
    assert type(recipe) is Recipe
    assert recipe == Recipe(epochs=3)
