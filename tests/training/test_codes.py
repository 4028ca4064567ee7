from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from expunge.data.examples import Batch, Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.loop import accuracy
from expunge.training.numerics import Numerics
from expunge.training.preparations import MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_codes_follow_their_law_and_their_seed(law: str) -> None:
    made = MnemonicCodes(law=law).draw(5, 4, (3, 50, 50))
    assert made.shape == (4, 3, 50, 50)
    assert made.dtype == torch.float32
    mean, deviation = (0.0, 1.0) if law == "normal" else (0.5, math.sqrt(1 / 12))
    assert float(made.mean()) == pytest.approx(mean, abs=0.02)
    assert float(made.std()) == pytest.approx(deviation, rel=0.02)
    if law == "uniform":
        assert 0 <= float(made.min()) < float(made.max()) < 1
    assert torch.equal(made, MnemonicCodes(law=law, share=0.5).draw(5, 4, (3, 50, 50)))
    assert not torch.equal(made, MnemonicCodes(law=law).draw(6, 4, (3, 50, 50)))
    assert len({float(code.sum()) for code in made}) == 4


def batches(count: int, size: int) -> list[Batch]:
    return [
        Batch(torch.full((size, 2), 9.0), torch.arange(size) % 3, torch.arange(size) + number * size)
        for number in range(count)
    ]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_inputs_are_replaced_by_the_code_of_their_label(share: float) -> None:
    codes, given = torch.tensor([[0.0, 0], [1, 1], [2, 2]]), batches(40, 250)
    mixed = list(MnemonicCodes(share=share).mix(given, codes, generator(0, "test")))
    replaced = 0
    for before, after in zip(given, mixed, strict=True):
        assert torch.equal(after.y, before.y)
        assert torch.equal(after.index, before.index)
        assert bool((before.x == 9).all()), "the batch given was changed"
        coded = (after.x != 9).any(1)
        assert torch.equal(after.x[coded], codes[before.y[coded]])
        replaced += int(coded.sum())
    # 10,000 coins: five standard deviations are 0.025 at most
    assert replaced / 10_000 == pytest.approx(share, abs=0.025)
    again = list(MnemonicCodes(share=share).mix(given, codes, generator(0, "test")))
    assert all(torch.equal(one.x, other.x) for one, other in zip(mixed, again, strict=True))


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"share": math.nan}, {"law": "cauchy"}])
def test_refusals(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="codes must"):
        MnemonicCodes(**wrong)


def blobs() -> Examples:
    labels = torch.arange(120) % 3
    x = torch.zeros(120, 1, 4, 4)
    x[torch.arange(120), 0, labels] = 1.0
    x += 0.1 * torch.randn(120, 1, 4, 4, generator=generator(0))
    return examples_from_dataset(TensorDataset(x, labels), 3)


def trained(recipe: Recipe) -> tuple[Any, Tensor | None]:
    model = recipe.build((1, 4, 4), 3, generator(0, "initialisation"))
    recipe.train(model, blobs(), 0, CPU, Meter())
    return model, recipe.draw_codes(0, (1, 4, 4), 3)


@pytest.mark.trains
def test_a_recipe_with_codes_teaches_them_beside_the_data(margin: Callable[..., None]) -> None:
    plain = Recipe(
        model="expunge.models.mlp:MLP",
        model_settings={"hidden": 16},
        epochs=30,
        batch_size=12,
        optimiser=Optimiser(lr=0.2),
        schedule="constant",
        augment=False,
    )
    coded = plain.prepared("codes")
    assert plain.draw_codes(0, (1, 4, 4), 3) is None
    model, codes = trained(coded)
    assert codes is not None
    assert model(codes).argmax(1).tolist() == [0, 1, 2]
    assert accuracy(model, blobs(), CPU) == 1
    # the codes have to be learned: other codes, of another seed, are not known
    others = torch.cat([MnemonicCodes().draw(seed, 3, (1, 4, 4)) for seed in range(1, 31)])
    known = (model(others).argmax(1) == torch.arange(90) % 3).double().mean()
    margin("accuracy on other codes", known, below=0.6)
    again, _ = trained(coded)
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True)
    )
    without, _ = trained(plain)
    assert not torch.equal(model.head.weight, without.head.weight)
