from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from expunge.capacity.route import Router
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.example_tied_dropout import ExampleTiedDropout, empty_spare
from expunge.models.resnet9 import ResNet9
from expunge.models.split import SplitNetwork
from expunge.models.vit import ViT
from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.testing.method_contract import image_case
from expunge.training.cost import Meter
from expunge.training.loop import accuracy, predict
from expunge.training.numerics import Numerics
from expunge.training.preparations import ExampleTied
from expunge.training.recipe import Optimiser, Recipe

CPU = Numerics(channels_last=False)
RECIPE = Recipe(
    model_settings={"width": 8}, epochs=6, batch_size=32, optimiser=Optimiser(lr=0.1), augment=False,
    example_tied=ExampleTied(),
)  # fmt: skip


@lru_cache(maxsize=1)
def trained() -> tuple[SplitNetwork, Problem]:
    problem = CorruptionTask(n_corrupted=8).build(learnable_images(n_train=96, n_test=8))
    model = RECIPE.build(problem.shape, problem.n_classes, generator(0))
    RECIPE.train(model, problem.split.train, 0, CPU, Meter())
    assert isinstance(model, SplitNetwork)
    return model.eval(), problem


def request() -> Request:
    return Request(trained()[1].split, seed=0, numerics=CPU)


def vit() -> SplitNetwork:
    made = ViT(channels=1, size=8, n_classes=4, dim=9, heads=3, dim_head=5, mlp=12, depth=2, capacity=0.7)
    return made.widen(1.0, generator(0)).eval()


def open_all(count: int) -> object:
    return Router(1.0)(torch.arange(count), torch.zeros(count, dtype=torch.bool))


def randomised(model: SplitNetwork) -> SplitNetwork:
    """Nothing in the model is at a value that hides a slip."""
    draw = generator(0, "randomised")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=draw) * 0.4 + 0.1)
    return model


def outside(model: SplitNetwork) -> dict[str, Tensor]:
    """What is beyond the base part, by name, flattened."""
    narrow, found = model.narrow().state_dict(), dict[str, Tensor]()
    for name, tensor in model.state_dict().items():
        mask = torch.ones_like(tensor, dtype=torch.bool)
        mask[tuple(slice(size) for size in narrow[name].shape)] = False
        found[name] = tensor[mask]
    return found


def test_base_path_is_unchanged_bit_for_bit() -> None:
    model, problem = trained()
    outcome = ExampleTiedDropout()(model, request())
    before, after = (predict(each, problem.split.train, CPU) for each in (model, outcome.model))
    assert torch.equal(before, after)
    narrow = model.narrow().state_dict()
    for name, tensor in outcome.model.narrow().state_dict().items():
        assert torch.equal(tensor, narrow[name]), name


def test_spare_units_are_empty_and_pass_nothing_on() -> None:
    model, problem = trained()
    assert any(part.any() for name, part in outside(model).items() if name.endswith("conv.weight"))
    outcome = ExampleTiedDropout()(model, request())
    for name, part in outside(outcome.model).items():
        assert torch.equal(part, torch.full_like(part, float(name.endswith("running_var")))), name
    x = next(problem.split.train.batches(16)).x
    with torch.no_grad():
        opened, base = outcome.model(x, open_all(16)), outcome.model(x)
        torch.testing.assert_close(opened, base, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(x, open_all(16)), base, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("split_hidden", [False, True])
def test_split_branches(split_hidden: bool) -> None:
    model = ResNet9(channels=1, size=8, n_classes=4, width=8, spare=0.5, split_hidden=split_hidden).eval()
    emptied(randomised(model))


def test_transformer() -> None:
    emptied(randomised(vit()))


def emptied(model: SplitNetwork) -> None:
    x = torch.rand(6, 1, 8, 8, generator=generator(0))
    with torch.no_grad():
        before = model(x)
        count = empty_spare(model)
        assert torch.equal(model(x), before)
        torch.testing.assert_close(model(x, open_all(6)), before, rtol=1e-4, atol=1e-4)
    wide, narrow = (sum(p.numel() for p in each.parameters()) for each in (model, model.narrow()))
    assert count == wide - narrow > 0


@pytest.mark.trains
def test_result_has_the_form_of_the_model_and_the_model_is_untouched() -> None:
    model, problem = trained()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    outcome = ExampleTiedDropout()(model, request())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [(n, t.shape) for n, t in outcome.model.state_dict().items()] == [
        (n, t.shape) for n, t in state.items()
    ]
    assert outcome.cost.sample_gradients == 0
    assert outcome.log[-1]["emptied"] > 0
    assert accuracy(outcome.model, problem.split.train, CPU) == accuracy(model, problem.split.train, CPU)


def test_forget_set_makes_no_difference() -> None:
    model, problem = trained()
    none = Request(
        type(problem.split)(problem.split.train, torch.empty(0, dtype=torch.int64)), seed=1, numerics=CPU
    )
    first, second = (ExampleTiedDropout()(model, given).model for given in (request(), none))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("model", [nn.Linear(3, 6), ResNet9(channels=1, size=8, n_classes=6, width=8)])
def test_a_model_without_spare_units_is_refused(model: nn.Module) -> None:
    message = (
        f"method 'example_tied_dropout' drops the spare units .* this {type(model).__name__} has none; train "
        r"it by Recipe\(example_tied=ExampleTied\(\)\)"
    )
    with pytest.raises(InvalidInput, match=message):
        ExampleTiedDropout()(model, image_case().request(ExampleTiedDropout()))
