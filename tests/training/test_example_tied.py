from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.capacity.route import Router, channel_mask
from expunge.data.examples import Batch
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.models.resnet9 import ResNet9
from expunge.models.split import Route, SplitNetwork
from expunge.seeding import derive_seed, generator
from expunge.tasks.corruption import CorruptionTask
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.preparations import ExampleTied
from expunge.training.recipe import Recipe

CPU = Numerics(channels_last=False)
RECIPE = Recipe(
    model_settings={"width": 8}, epochs=1, batch_size=32, augment=False, example_tied=ExampleTied()
)


class Record(nn.Module):
    """Keeps which of 40 units, 10 of them base, are open for each example of a batch."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(40, 3))

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        assert route is not None
        self.seen = route(torch.ones(len(x), 40), 10, 2)
        return self.seen @ self.weight


def batch(index: list[int]) -> Batch:
    rows = torch.tensor(index)
    return Batch(torch.zeros(len(rows), 1), rows % 3, rows)


def opened(index: list[int], seed: int = 0, share: float = 0.2) -> Tensor:
    model = Record()
    ExampleTied(share=share).objective(seed)(model, batch(index))
    return model.seen


def test_each_example_sees_its_own_units() -> None:
    seen = opened(list(range(200)))
    assert (seen[:, :10] == 1).all()
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert len(seen.unique(dim=0)) == 200
    assert float(seen[:, 10:].mean()) == pytest.approx(0.2, abs=0.02)
    expected = channel_mask(torch.arange(200), 30, 0.2, derive_seed(0, "example-tied masks"), 2)
    assert torch.equal(seen[:, 10:].bool(), expected)


def test_units_belong_to_the_example_whatever_batch_it_is_in() -> None:
    first, second = opened([3, 8, 5]), opened([5, 1, 90, 3])
    assert torch.equal(first[0], second[3])
    assert torch.equal(first[2], second[0])
    assert not torch.equal(opened([3], seed=1), first[:1])
    assert opened([3], share=1.0).all()


def test_objective_is_the_cross_entropy_on_the_routed_path() -> None:
    images = CorruptionTask(n_corrupted=2).build(learnable_images(n_train=32)).split.train
    model = ResNet9(channels=1, size=8, n_classes=4, width=8, spare=1.0).eval()
    given = next(images.batches(8))
    loss = ExampleTied(share=0.3).objective(5)(model, given)
    route = Router(0.3, derive_seed(5, "example-tied masks"))(given.index, torch.zeros(8, dtype=torch.bool))
    with torch.no_grad():
        log_p = model(given.x, route).log_softmax(1)
        base = model(given.x).log_softmax(1)
    expected = -sum(float(log_p[i, given.y[i]]) for i in range(8)) / 8
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(-sum(float(base[i, given.y[i]]) for i in range(8)) / 8, rel=1e-5)
    assert loss.gradients == 8


def test_recipe_builds_spare_units_and_trains_them() -> None:
    images = CorruptionTask(n_corrupted=2).build(learnable_images(n_train=64)).split.train
    model = RECIPE.build((1, 8, 8), 4, generator(0))
    assert isinstance(model, SplitNetwork)
    assert model.spare == 1.0
    before = model.state_dict()["conv1.conv.weight"].clone()
    meter = Meter()
    RECIPE.train(model, images, 0, CPU, meter)
    assert meter.sample_gradients == 64
    after = model.state_dict()["conv1.conv.weight"]
    # A step of weight decay alone would shrink a filter; its direction is changed by a gradient only.
    turned = nn.functional.cosine_similarity(after.flatten(1), before.flatten(1))
    assert (turned < 1 - 1e-6).all()


def test_training_follows_its_seed() -> None:
    images = CorruptionTask(n_corrupted=2).build(learnable_images(n_train=64)).split.train

    def train(seed: int) -> list[Tensor]:
        model = RECIPE.train(RECIPE.build((1, 8, 8), 4, generator(0)), images, seed, CPU, Meter())
        return [parameter.detach() for parameter in model.parameters()]

    first, again, other = train(1), train(1), train(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_base_is_that_of_the_recipe_without_the_preparation() -> None:
    wide = RECIPE.build((1, 8, 8), 4, generator(0))
    plain = RECIPE.prepared("").build((1, 8, 8), 4, generator(0))
    assert isinstance(wide, SplitNetwork)
    narrow = wide.narrow().state_dict()
    assert all(torch.equal(tensor, narrow[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}])
def test_share(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="must lie in"):
        ExampleTied(**wrong)


def test_spare_and_networks_that_cannot_be_widened() -> None:
    with pytest.raises(
        InvalidInput, match=r"spare must be above 0 \(spare units for each base unit\), got 0"
    ):
        ExampleTied(spare=0.0)
    with pytest.raises(InvalidInput, match=r"needs a network with spare units \(resnet9, vit\), got Linear"):
        ExampleTied().widen(nn.Linear(2, 2), generator(0))


def test_an_objective_of_the_callers_own_is_refused() -> None:
    images = CorruptionTask(n_corrupted=2).build(learnable_images(n_train=64)).split.train
    model = RECIPE.build((1, 8, 8), 4, generator(0))
    with pytest.raises(InvalidInput, match="example-tied dropout has an objective of its own"):
        RECIPE.train(model, images, 0, CPU, Meter(), objective=ExampleTied().objective(0))
