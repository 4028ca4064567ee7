from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.data.images import Augmentation, ImageSource
from expunge.data.synthetic import learnable_images
from expunge.errors import Diverged, InvalidInput
from expunge.populations.stacked import train_together, worth_stacking
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.preparations import MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)
DATA = learnable_images(n_train=90, n_test=8, n_classes=3)
SEEDS = [11, 12, 13]

# Sums are taken in another order in a stack. float32 rounds at 6e-8, each of the steps here (9 to 12) passes
# the difference on, and normalisation by a batch's small variance magnifies it by two or three digits.
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}


def examples() -> Examples:
    source = ImageSource(DATA.train_images, DATA.mean, DATA.std, Augmentation(pad=1, flip=True))
    return Examples.all_of(source, DATA.train_labels, 3)


def parts(size: int = 50) -> list[Examples]:
    return [examples().select(torch.randperm(90, generator=generator(seed))[:size]) for seed in SEEDS]


def fresh(recipe: Recipe) -> list[nn.Module]:
    return [recipe.build(DATA.shape, 3, generator(seed, "initialisation")) for seed in SEEDS]


MLP = Recipe(
    model="mlp", model_settings={"hidden": 12}, epochs=3, batch_size=16, augment=False,
    optimiser=Optimiser(lr=0.1), schedule="warmup_decay",
)  # fmt: skip
RESNET = replace(MLP, model="resnet9", model_settings={"width": 8}, optimiser=Optimiser(lr=0.02))


@pytest.mark.parametrize(
    "recipe",
    [
        MLP,
        replace(MLP, augment=True),
        replace(MLP, optimiser=Optimiser(name="adam", lr=0.01)),
        replace(MLP, optimiser=Optimiser(name="adamw", lr=0.01, weight_decay=0.1), schedule="cosine"),
        RESNET,
        replace(RESNET, model_settings={"width": 8, "split_hidden": True}),
    ],
    ids=["mlp", "augmented", "adam", "adamw", "resnet9", "split"],
)
def test_equals_training_one_model_alone(recipe: Recipe) -> None:
    """50 examples in batches of 16: the last batch of an epoch is smaller."""
    together, alone = fresh(recipe), fresh(recipe)
    first = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in together]
    meter, one = Meter(), Meter()
    with meter:
        train_together(recipe, together, parts(), SEEDS, CPU, meter)
    for model, part, seed in zip(alone, parts(), SEEDS, strict=True):
        with one:
            recipe.train(model, part, seed, CPU, one)
    for ours, theirs, before in zip(together, alone, first, strict=True):
        moved = False
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, **CLOSE)
            moved = moved or not torch.allclose(tensor.double(), before[name].double(), atol=0.01)
        assert moved
    assert meter.sample_gradients == one.sample_gradients == 3 * 3 * 50


def test_each_model_is_its_own() -> None:
    """A neighbour in the stack, its data and its statistics change nothing."""
    given = parts()
    three, other = fresh(RESNET), fresh(RESNET)
    with Meter() as meter:
        train_together(RESNET, three, given, SEEDS, CPU, meter)
        # the middle one beside other neighbours
        train_together(RESNET, other[1:], [given[1], given[0]], [SEEDS[1], 99], CPU, meter)
    for name, tensor in three[1].state_dict().items():
        torch.testing.assert_close(other[1].state_dict()[name], tensor, **CLOSE)
    means = [model.state_dict()["conv1.norm.running_mean"] for model in three]
    assert not torch.allclose(means[0], means[1], atol=1e-3)
    assert int(three[0].state_dict()["conv1.norm.num_batches_tracked"]) == 12


def test_modes_are_left_alone() -> None:
    models = fresh(RESNET)
    for model in models:
        model.eval()
    with Meter() as meter:
        train_together(RESNET, models, parts(), SEEDS, CPU, meter)
    assert [model.training for model in models] == [False] * 3


def test_small_models_are_worth_it() -> None:
    def small(recipe: Recipe, numerics: Numerics = CPU) -> bool:
        model = replace(recipe, example_tied=None).build(DATA.shape, 3, generator(0))
        return worth_stacking(recipe, model, numerics)

    assert small(MLP)
    assert small(RESNET)
    assert not small(replace(RESNET, model_settings={"width": 64}, batch_size=512))
    assert small(replace(RESNET, model_settings={"width": 64}, batch_size=512), Numerics("cuda"))
    assert not small(replace(RESNET, model_settings={"width": 8, "spare": 1.0}))
    assert not small(replace(MLP, codes=MnemonicCodes()))
    assert not small(RESNET.prepared("example_tied"))
    assert not small(MLP, Numerics(dtype="bfloat16"))
    assert not small(replace(MLP, model="vit", model_settings={}))


def test_refusals() -> None:
    for recipe in (
        replace(RESNET, model_settings={"width": 8, "spare": 1.0}),
        replace(MLP, codes=MnemonicCodes()),
    ):
        with pytest.raises(InvalidInput, match="does not train in a stack"):
            train_together(recipe, fresh(recipe), parts(), SEEDS, CPU, Meter())
    wild = replace(MLP, model_settings={"hidden": 12, "activation": "relu"}, optimiser=Optimiser(lr=1e9))
    with pytest.raises(Diverged, match="lower the learning rate"), Meter() as meter:
        train_together(wild, fresh(wild), parts(), SEEDS, CPU, meter)
