from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from expunge.data.examples import Batch
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput, UnknownName
from expunge.seeding import generator
from expunge.tasks.corruption import CorruptionTask
from expunge.training.cost import Meter
from expunge.training.loop import Loss, accuracy, cross_entropy
from expunge.training.numerics import Numerics
from expunge.training.preparations import MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)


def small(**settings: Any) -> Recipe:
    given = {"model_settings": {"width": 4}, "epochs": 2, "batch_size": 32, "augment": False, **settings}
    return Recipe(**given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "lion"}, "optimiser must be 'sgd', 'adam' or 'adamw', got 'lion'"),
        ({"lr": 0.0}, "learning rate must be positive and finite, got 0.0"),
        ({"lr": float("inf")}, "learning rate must be positive and finite, got inf"),
        ({"lr": float("nan")}, "learning rate must be positive and finite, got nan"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\) and weight decay be at least 0, got 1.0 and"),
        ({"weight_decay": -0.1}, "weight decay be at least 0, got 0.9 and -0.1"),
    ],
)
def test_optimiser_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Optimiser(**wrong)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimiser_over_what_is_trainable(name: str, kind: type[torch.optim.Optimizer]) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    net[0].requires_grad_(False)
    made = Optimiser(name=name, lr=0.1, momentum=0.8, weight_decay=0.01).over(net)
    assert type(made) is kind
    (group,) = made.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(p) for p in net[1].parameters()]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    assert group.get("momentum", 0.8) == 0.8


def test_nothing_trainable() -> None:
    with pytest.raises(
        InvalidInput, match="no parameter requires a gradient; unfreeze what is to be trained"
    ):
        Optimiser().over(nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}])
def test_lengths(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="epochs and batch size must be at least 1, got"):
        Recipe(**wrong)


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match=r"unknown schedule 'linear'"):
        Recipe(schedule="linear")
    with pytest.raises(UnknownName, match=r"unknown model 'resnet8'; did you mean 'resnet9'\?"):
        Recipe(model="resnet8").build((1, 8, 8), 3, generator(0))


def test_settings_the_model_does_not_take() -> None:
    with pytest.raises(InvalidInput, match=r"model 'resnet9' does not take the settings \{'depth': 3\}"):
        Recipe(model_settings={"depth": 3}).build((1, 8, 8), 3, generator(0))


def test_images_that_are_not_square() -> None:
    with pytest.raises(InvalidInput, match="images must be square for resnet9, got 8x9; pad or crop them"):
        Recipe().build((1, 8, 9), 3, generator(0))


def test_model_follows_its_generator_alone() -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        return small().build((1, 8, 8), 3, generator(seed)).state_dict()

    before = torch.get_rng_state()
    first = build(1)
    torch.rand(5)
    again, other = build(1), build(2)
    torch.set_rng_state(before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.conv.weight"], other["conv1.conv.weight"])


def test_codes_are_drawn_once_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = CorruptionTask(n_corrupted=2).build(learnable_images()).split.train
    recipe, drawn, draw = small(epochs=3, codes=MnemonicCodes(share=0.5)), [], MnemonicCodes.draw

    def counted(self: MnemonicCodes, *given: Any) -> torch.Tensor:
        drawn.append(draw(self, *given))
        return drawn[-1]

    monkeypatch.setattr(MnemonicCodes, "draw", counted)
    seen: list[Batch] = []

    def record(model: nn.Module, batch: Batch) -> Loss:
        seen.append(batch)
        return cross_entropy(model, batch)

    model = recipe.build((1, 8, 8), 4, generator(0))
    recipe.train(model, examples, 7, CPU, Meter(), objective=record)
    (codes,) = drawn
    assert torch.equal(codes, draw(MnemonicCodes(share=0.5), 7, 4, (1, 8, 8)))
    swapped = [(batch.x == codes[batch.y]).flatten(1).all(1) for batch in seen]
    passes = [torch.cat(swapped[start : start + 8]) for start in (0, 8, 16)]
    assert [len(each) for each in passes] == [256] * 3
    assert all(80 < int(each.sum()) < 176 for each in passes)


@pytest.mark.trains
def test_training_is_determined_by_its_seed_and_learns(margin: Callable[..., None]) -> None:
    examples = CorruptionTask(n_corrupted=2).build(learnable_images()).split.train
    recipe = small(epochs=4, optimiser=Optimiser(lr=0.1))

    def train(seed: int) -> nn.Module:
        model = recipe.build((1, 8, 8), 4, generator(0))
        meter = Meter()
        assert recipe.train(model, examples, seed, CPU, meter) is model
        assert meter.sample_gradients == 4 * 256
        return model

    first, again, other = train(1), train(1), train(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    margin("accuracy", accuracy(first, examples, CPU), above=0.9)
