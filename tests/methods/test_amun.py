from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.data.examples import Batch
from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.amun import AMUN, Attack, _margins
from expunge.methods.base import Request
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.cost import Meter
from expunge.training.loop import predict
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def plane() -> nn.Linear:
    """Class 1 where 3 x - 4 y > 1."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -4.0]]))
        layer.bias.copy_(torch.tensor([0.0, -1.0]))
    return layer


def points() -> Batch:
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)) * 4
    return Batch(x, plane()(x).argmax(1), torch.arange(30))


def distances(x: torch.Tensor) -> torch.Tensor:
    """Signed distance to the boundary."""
    return (3 * x[:, 0] - 4 * x[:, 1] - 1) / 5


def test_finds_the_point_just_over_the_boundary() -> None:
    batch, meter = points(), Meter()
    found, labels = Attack(0.05)(plane(), batch, CPU, meter)
    assert torch.equal(labels, 1 - batch.y)
    nearest, moved = distances(batch.x).abs(), (found - batch.x).norm(dim=1)
    assert bool((distances(found) * distances(batch.x) < 0).all())
    # one step over at the most: a tenth of a radius, which is below twice the distance
    assert bool((moved >= nearest - 1e-4).all())
    assert bool((moved - nearest <= 0.1 * torch.clamp(2 * nearest, min=0.05) + 1e-4).all())
    foot = batch.x - distances(batch.x)[:, None] * torch.tensor([0.6, -0.8])
    assert torch.allclose(found, foot, atol=2.5)
    assert meter.sample_gradients > 0


def test_a_larger_first_radius_finds_farther_points() -> None:
    batch = points()
    near, _ = Attack(0.05)(plane(), batch, CPU, Meter())
    far, labels = Attack(20.0)(plane(), batch, CPU, Meter())
    assert torch.equal(labels, 1 - batch.y)
    moved, farther = (near - batch.x).norm(dim=1), (far - batch.x).norm(dim=1)
    # a tenth of the larger radius oversteps a boundary that is nearer than half of that step
    close = distances(batch.x).abs() < 1
    assert int(close.sum()) > 3
    assert bool((moved < farther)[close].all())
    assert float(moved.mean()) < 0.9 * float(farther.mean())


def test_what_lies_beyond_the_last_radius_is_not_found_and_no_ball_is_left() -> None:
    batch = points()
    found, labels = Attack(0.5, doublings=0)(plane(), batch, CPU, Meter())
    assert torch.equal(labels >= 0, distances(batch.x).abs() < 0.5)
    assert bool(((found - batch.x).norm(dim=1) <= 0.5 + 1e-5).all())


def test_what_is_misclassified_already_is_its_own_adversarial_example() -> None:
    batch, meter = points(), Meter()
    wrong = Batch(batch.x, 1 - batch.y, batch.index)
    found, labels = Attack(1.0)(plane(), wrong, CPU, meter)
    assert torch.equal(found, batch.x)
    assert torch.equal(labels, batch.y)
    assert meter.sample_gradients == 0


def test_a_certain_model_is_attacked_too() -> None:
    model, batch = plane(), points()
    with torch.no_grad():
        model.weight *= 1000
        model.bias *= 1000
    assert float(nn.functional.cross_entropy(model(batch.x), batch.y).detach()) == 0
    found, labels = Attack(0.05)(model, batch, CPU, Meter())
    assert torch.allclose(found, Attack(0.05)(plane(), batch, CPU, Meter())[0], atol=1e-3)
    assert torch.equal(labels, 1 - batch.y)


def test_steps_follow_the_gradient_of_the_cross_entropy() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    y = torch.arange(6) % 4
    (ours,) = torch.autograd.grad(_margins(logits, y).sum(), logits)
    (plain,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), logits)
    assert torch.allclose(nn.functional.normalize(ours), nn.functional.normalize(plain), atol=1e-5)


def test_gradients_of_every_step_are_counted() -> None:
    batch, meter = points(), Meter()
    Attack(1e-4, steps=7, doublings=1)(plane(), batch, CPU, meter)
    assert meter.sample_gradients == 30 * 7 * 2


def test_attack_leaves_the_model_alone_and_is_right_about_it() -> None:
    case = image_case()
    model = case.fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    granted = case.request(AMUN()).grant("amun", AMUN.needs)
    with granted.meter:
        adversarial = AMUN(batch_size=10).adversarial(model, granted)
    assert len(adversarial) == len(case.split.forget)
    assert torch.equal(predict(model, adversarial, CPU).argmax(1), adversarial.labels)
    known = predict(model, case.split.forget, CPU).argmax(1) == case.split.forget.labels
    assert bool((adversarial.labels != case.split.forget.labels)[known].all())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("data", "others"), [("retain", 20), ("retain+forget", 30), ("forget", 10)])
def test_what_is_fine_tuned_on(data: str, others: int) -> None:
    batch = points()
    train = in_memory(batch.x, batch.y, 2)
    method = AMUN(data=data, epochs=1, epsilon=0.05)
    given = Request(Split(train, torch.arange(10)), seed=0, numerics=CPU)
    meter = Meter()
    Attack(0.05)(plane(), batch.take(torch.arange(10)), CPU, meter)
    outcome = method(plane(), given)
    assert outcome.cost.sample_gradients - meter.sample_gradients == others + 10
    assert outcome.log[0]["adversarial"] == 10


def test_refuses_where_nothing_is_found() -> None:
    batch = points()
    given = Request(Split(in_memory(batch.x, batch.y, 2), torch.arange(10)), seed=0, numerics=CPU)
    with pytest.raises(InvalidInput, match=r"no adversarial example was found for any of the 10 .* 2e-06"):
        AMUN(epsilon=1e-6, doublings=1)(plane(), given)


def test_refuses_settings() -> None:
    with pytest.raises(InvalidInput, match=r"data must be one of 'retain', .* got 'all'"):
        AMUN(data="all")
    with pytest.raises(InvalidInput, match="epsilon must be positive"):
        AMUN(epsilon=0)
    with pytest.raises(InvalidInput, match="doublings must be at least 0"):
        AMUN(doublings=-1)
