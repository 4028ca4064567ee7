from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.sfron import SFRon, _Phases, annealed, coefficients, drawn, salient
from expunge.tasks.base import Split
from expunge.training.numerics import Devices, Numerics

CPU = Numerics(channels_last=False)


def request() -> Request:
    draw = torch.Generator().manual_seed(0)
    train = in_memory(torch.randn(24, 3, generator=draw), torch.arange(24) % 4, 4)
    return Request(Split(train, torch.arange(8)), seed=0, numerics=CPU)


def layer() -> nn.Linear:
    made = nn.Linear(3, 4)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-1, 1, 12).view(4, 3))
        made.bias.zero_()
    return made


def test_coefficients_are_powers_of_the_loss_with_mean_one() -> None:
    losses = torch.tensor([0.0, 0.01, 1.0, 4.0], requires_grad=True)
    found = coefficients(losses, 0.5)
    assert not found.requires_grad
    powers = [1000.0, 10.0, 1.0, 0.5]
    assert found.tolist() == pytest.approx([4 * power / sum(powers) for power in powers], rel=1e-5)
    assert coefficients(losses, 0.0).tolist() == [1, 1, 1, 1]


def test_rate_falls_by_half_a_cosine() -> None:
    assert annealed(0, 10) == 1
    assert annealed(5, 10) == pytest.approx(0.5)
    assert annealed(9, 10) == pytest.approx((1 - math.cos(math.pi / 10)) / 2)


def test_mask_is_the_thresholded_ratio() -> None:
    draw = torch.Generator().manual_seed(0)
    forget, retain = torch.rand(2, 50, generator=draw)
    forget[:3], retain[1:4] = 0, 0
    (found,) = salient([forget], [retain], 1.5)
    for of_forget, of_retain, taken in zip(forget.tolist(), retain.tolist(), found.tolist(), strict=True):
        ratio = of_forget / of_retain if of_retain else float("inf") if of_forget else 0.0
        assert taken is (ratio >= 1.5)


def test_objective_holds_the_coefficients_constant() -> None:
    model = layer()
    batch = next(request().grant("sfron", SFRon.needs).forget.batches(8))
    loss = _Phases(0.5, weight=3.0)(model, batch)
    (slope,) = torch.autograd.grad(loss.value, model.weight)
    singles = [F.cross_entropy(model(batch.x[i : i + 1]), batch.y[i : i + 1]) for i in range(8)]
    powers = [float(single.detach()) ** -0.5 for single in singles]
    expected = torch.zeros(4, 3)
    for single, power in zip(singles, powers, strict=True):
        (one,) = torch.autograd.grad(single, model.weight)
        expected -= 3.0 * 8 * power / sum(powers) * one / 8
    assert torch.allclose(slope, expected, atol=1e-6)
    assert loss.gradients == 8


def test_masks_compare_squared_gradients_of_batches_of_one_size() -> None:
    method, granted, model = SFRon(batch_size=100, threshold=0.5), request(), layer()
    granted = granted.grant("sfron", SFRon.needs)
    with granted.meter:
        found = method.masks(model, granted)
    # the 8 of the forget set are one batch; the 16 retained are two of 8
    squares = []
    for examples, role in ((granted.forget, "fisher of forget"), (granted.retain, "fisher of retain")):
        slopes = [
            torch.autograd.grad(F.cross_entropy(model(b.x), b.y), list(model.parameters()))
            for b in examples.batches(8, granted.generator(role))
        ]
        squares.append([sum(s[k] ** 2 for s in slopes) / len(slopes) for k in range(2)])
    for mask, of_forget, of_retain in zip(found, *squares, strict=True):
        assert torch.equal(mask, of_forget / of_retain >= 0.5)
    assert granted.meter.sample_gradients == 24
    assert granted.meter.log[0]["salient_share"] == pytest.approx(
        sum(int(m.sum()) for m in found) / sum(m.numel() for m in found)
    )


@pytest.mark.parametrize(("slow_rate", "clip"), [(1.0, 7.0), (0.3, 7.0), (1.0, 0.05)])
def test_two_steps_by_hand(slow_rate: float, clip: float) -> None:
    given, model = request(), layer()
    method = SFRon(
        lr=0.2, batch_size=16, momentum=0.9, weight_decay=0.01, steps=2, inner_steps=1, forget_weight=2.5,
        clip=clip, slow_rate=slow_rate, temperature=0.5,
    )  # fmt: skip
    result = method(model, given).model
    granted = given.grant("sfron", SFRon.needs)
    forget, retain = next(granted.forget.batches(8)), next(granted.retain.batches(16))
    with granted.meter:
        masks = method.masks(model, granted)
    now = [p.detach().clone() for p in model.parameters()]
    speed = [torch.zeros_like(p) for p in now]

    def move(slopes: list[Tensor], rate: float) -> None:
        for k in range(2):
            speed[k] = 0.9 * speed[k] + slopes[k] + 0.01 * now[k]
            now[k] = now[k] - rate * speed[k]

    for t in range(2):
        start, factor = list(now), (1 + math.cos(math.pi * t / 2)) / 2
        at = [p.clone().requires_grad_(True) for p in now]
        losses = F.cross_entropy(F.linear(forget.x, *at), forget.y, reduction="none")
        weights = losses.detach() ** -0.5
        ascent = -2.5 * factor * (8 * weights / weights.sum() * losses).mean()
        slopes = [m * s for m, s in zip(masks, torch.autograd.grad(ascent, at), strict=True)]
        length = float(torch.cat([s.flatten() for s in slopes]).norm())
        assert (length > clip) is (clip < 1)
        move([s * min(1.0, clip / length) for s in slopes], 0.2 * factor)
        at = [p.clone().requires_grad_(True) for p in now]
        repair = torch.autograd.grad(F.cross_entropy(F.linear(retain.x, *at), retain.y), at)
        move(list(repair), 0.2 * factor)
        now = [a - slow_rate * (a - b) for a, b in zip(start, now, strict=True)]
    for expected, found in zip(now, result.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=2e-6)


def test_work_is_counted_and_the_mask_is_made_once_of_all_batches() -> None:
    outcome = SFRon(batch_size=4, steps=5, inner_steps=3)(layer(), request())
    assert len([row for row in outcome.log if "salient_share" in row]) == 1
    assert outcome.cost.sample_gradients == (8 + 16) + 5 * (4 + 3 * 4)


def test_several_devices_are_refused() -> None:
    with pytest.raises(InvalidInput, match="weighs a batch's examples against each other"):
        SFRon().check_devices(Devices(2))


def test_rows_are_drawn_in_whole_rounds() -> None:
    rows = torch.cat(list(islice(drawn(5, 3, torch.Generator().manual_seed(0)), 10)))
    assert rows.view(6, 5).sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 6


def test_refuses_an_empty_retain_set() -> None:
    train = in_memory(torch.randn(6, 3), torch.arange(6) % 4, 4)
    with pytest.raises(InvalidInput, match="on the retain set, got 0 examples"):
        SFRon()(layer(), Request(Split(train, torch.arange(6)), seed=0, numerics=CPU))


def test_refuses_settings() -> None:
    with pytest.raises(InvalidInput, match=r"slow_rate must lie in \(0, 1\], got 0"):
        SFRon(slow_rate=0.0)
    with pytest.raises(InvalidInput, match="temperature must be at least 0, got -1"):
        SFRon(temperature=-1.0)
    with pytest.raises(InvalidInput, match="threshold must be positive"):
        SFRon(threshold=0.0)
