from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from expunge.data.synthetic import learnable_images
from expunge.detection.out_of_sample import fresh_copies
from expunge.errors import Diverged, InvalidInput
from expunge.evaluation.references import References, check_made_from, made_from, train_references
from expunge.models.mlp import MLP
from expunge.store.weights import WeightStore
from expunge.tasks.forgetting import ForgetClasses
from expunge.training.loop import accuracy
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)
DATA = learnable_images(n_train=80, n_test=40, n_classes=4)
TRAIN = ForgetClasses(classes=(1,)).build(DATA).split.train
CLASS = (TRAIN.labels == 1).nonzero().flatten()
RECIPE = Recipe(epochs=15, batch_size=16, optimiser=Optimiser(name="adam", lr=0.01), augment=False)


def train(folder: Path, model: nn.Module | None = None, **settings: Any) -> References:
    given = {
        "recipe": RECIPE,
        "numerics": CPU,
        "kept": WeightStore(folder),
        "architecture": "mlp",
        "data": "d" * 32,
        **settings,
    }
    return train_references(fresh_copies(model or MLP(1, 8, 4, 8, "relu")), TRAIN, CLASS, **given)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.trains
def test_two_retrained_models_that_never_saw_the_class(tmp_path: Path, margin: Callable[..., None]) -> None:
    shares: list[float] = []
    made = train(tmp_path, progress=shares.append)
    assert list(made.models) == ["retrained", "second_retrained"]
    assert made.trained == ("retrained", "second_retrained")
    assert not same(made.models["retrained"], made.models["second_retrained"])
    for model in made.models.values():
        margin("accuracy", accuracy(model, TRAIN.select(TRAIN.labels != 1), CPU), above=0.95)
        assert accuracy(model, TRAIN.select(CLASS), CPU) == 0
        assert not model.training
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_what_is_kept_is_used_again(tmp_path: Path) -> None:
    first = train(tmp_path)
    again = train(tmp_path)
    assert again.trained == ()
    assert all(same(first.models[role], again.models[role]) for role in first.models)
    assert again.seconds["retrained"] == pytest.approx(first.seconds["retrained"], abs=1e-3)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 2
    key = files[0].stem
    assert WeightStore(tmp_path).metadata(key).items() >= made_from("d" * 32, CLASS).items()


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"data": "e" * 32},
        {"architecture": "other"},
        {"recipe": Recipe(epochs=1, batch_size=16, augment=False)},
    ],
)  # fmt: skip
def test_anything_else_is_trained_anew(tmp_path: Path, settings: dict[str, Any]) -> None:
    train(tmp_path, second=False)
    assert train(tmp_path, second=False, **settings).trained == ("retrained",)


@pytest.mark.trains
def test_an_oracle_learns_the_true_labels(tmp_path: Path, margin: Callable[..., None]) -> None:
    true = torch.full((80,), -1)
    true[:10] = (TRAIN.labels[:10] + 1) % 4
    made = train(tmp_path, true_labels=true, second=False, recipe=Recipe(
        epochs=150, batch_size=16, optimiser=Optimiser(name="adam", lr=0.01, weight_decay=0.0), augment=False,
        schedule="constant",
    ), model=MLP(1, 8, 4, 64, "relu"))  # fmt: skip
    assert list(made.models) == ["retrained", "oracle"]
    oracle = made.models["oracle"]
    corrected = TRAIN.relabel(torch.where(true < 0, TRAIN.labels, true))
    margin("accuracy", accuracy(oracle, corrected, CPU), above=0.95)


def test_a_last_batch_of_one_is_avoided(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    # 60 retained examples: 59 and one
    made = train(tmp_path, net, recipe=Recipe(epochs=1, batch_size=59, augment=False), second=False)
    assert made.trained == ("retrained",)


def test_a_training_that_diverges_is_named(tmp_path: Path) -> None:
    wild = Recipe(epochs=2, batch_size=16, optimiser=Optimiser(lr=1e12), augment=False)
    with pytest.raises(Diverged, match="the retrained model: the training loss became"):
        train(tmp_path, recipe=wild)
    assert not list(tmp_path.glob("*"))


def test_metadata_of_other_data_is_refused() -> None:
    own = made_from("a", CLASS)
    check_made_from(own, "a", CLASS, "r.safetensors")
    check_made_from({"format": "pt"}, "a", CLASS, "r.safetensors")
    with pytest.raises(
        InvalidInput, match=r"r\.safetensors was made for other training data: its expunge\.data is a"
    ):
        check_made_from(own, "b", CLASS, "r.safetensors")
    with pytest.raises(InvalidInput, match="was made for another forget set"):
        check_made_from(own, "a", CLASS[1:], "r.safetensors")
