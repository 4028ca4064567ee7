from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted_digits import NUMERICS, two_layers
from torch import nn

from expunge.data.joined import in_memory
from expunge.detection.out_of_sample import fresh_copies, out_of_sample, short_training, stratified_folds
from expunge.errors import Diverged, InvalidInput
from expunge.seeding import derive_seed, generator
from expunge.store.weights import WeightStore
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = replace(short_training(64), epochs=2)


def blobs(count: int = 60, classes: int = 3):  # type: ignore[no-untyped-def]
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    inputs = torch.randn(count, 4, generator=draw) + 3 * nn.functional.one_hot(labels, 4)
    return in_memory(inputs, labels, classes)


def small_net(classes: int = 3) -> nn.Module:
    return two_layers(inputs=4, hidden=8, classes=classes)


def test_probabilities_equal_those_of_models_trained_by_hand() -> None:
    examples, model = blobs(), small_net()
    found = out_of_sample(fresh_copies(model), examples, NUMERICS, recipe=RECIPE, folds=3, seed=7)
    fold = stratified_folds(examples.labels, 3, 7)
    for number in range(3):
        seed = derive_seed(7, "fold", number)
        by_hand = fresh_copies(model)(generator(seed, "initialisation"))
        with Meter() as meter:
            RECIPE.train(by_hand, examples.select(fold != number), seed, NUMERICS, meter)
        by_hand.eval()
        with torch.no_grad():
            logits = by_hand(next(examples.select(fold == number).batches(100)).x)
        expected = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
        torch.testing.assert_close(found[fold == number], expected, rtol=1e-6, atol=1e-9)


def test_model_and_data_stay_untouched_and_the_seed_decides() -> None:
    examples, model = blobs(), small_net()
    before = copy.deepcopy(model.state_dict())
    first = out_of_sample(fresh_copies(model), examples, NUMERICS, recipe=RECIPE, folds=2)
    again = out_of_sample(fresh_copies(model), examples, NUMERICS, recipe=RECIPE, folds=2)
    other = out_of_sample(fresh_copies(model), examples, NUMERICS, recipe=RECIPE, folds=2, seed=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.sum(1), torch.ones(60, dtype=torch.float64))


def test_a_copy_is_drawn_anew_and_thawed() -> None:
    model = small_net().requires_grad_(False)
    made = fresh_copies(model)(torch.Generator())
    assert all(parameter.requires_grad for parameter in made.parameters())
    assert not torch.equal(made[1].weight, model[1].weight)  # type: ignore[index]


def test_a_module_that_cannot_be_reset_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

    with pytest.raises(InvalidInput, match=r"Odd .* owns parameters but has no"):
        fresh_copies(Odd())(torch.Generator())


def test_finished_folds_are_kept_and_taken_up_again(tmp_path: Path) -> None:
    examples, model, made = blobs(), small_net(), []
    kept = WeightStore(tmp_path)

    def fresh(source: torch.Generator) -> nn.Module:
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return fresh_copies(model)(source)

    def run(key: str = "k") -> torch.Tensor:
        return out_of_sample(fresh, examples, NUMERICS, recipe=RECIPE, folds=3, kept=kept, key=key)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    resumed = run()
    assert len(made) == 4  # the third model alone
    assert torch.equal(
        resumed, out_of_sample(fresh_copies(model), examples, NUMERICS, recipe=RECIPE, folds=3)
    )
    run("another")
    assert len(made) == 7


def test_progress_rises_to_one() -> None:
    seen: list[float] = []
    out_of_sample(fresh_copies(small_net()), blobs(), NUMERICS, recipe=RECIPE, folds=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert 0.5 in seen


def test_a_batch_of_one_is_avoided() -> None:
    # 65 examples to train on are a batch of 64 and one of 1, which batch norm cannot train on
    examples = blobs(130, 2)
    recipe = replace(RECIPE, batch_size=64)
    out_of_sample(fresh_copies(small_net(2)), examples, NUMERICS, recipe=recipe, folds=2)


def test_short_training_makes_enough_steps() -> None:
    assert short_training(64 * 100).epochs == 15
    assert short_training(64 * 10).epochs == 60
    assert short_training(640, epochs=3).epochs == 3
    with pytest.raises(InvalidInput, match="batch size must be at least 1, got 0"):
        short_training(640, batch_size=0)


def test_a_training_that_diverges_names_the_fold() -> None:
    wild = Recipe(epochs=5, batch_size=16, augment=False, optimiser=Optimiser(lr=1e30, weight_decay=0))
    with pytest.raises(Diverged, match="fold 1 of 2: the training loss became"):
        out_of_sample(fresh_copies(small_net()), blobs(), NUMERICS, recipe=wild, folds=2)


def test_examples_elsewhere_are_refused() -> None:
    with pytest.raises(InvalidInput, match="examples are on cpu but the work is on meta"):
        out_of_sample(fresh_copies(small_net()), blobs(), Numerics("meta"), recipe=RECIPE)
