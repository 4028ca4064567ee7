from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.sfron import SFRon, WeightedAscent, coefficients, drawn, salient
from expunge.tasks.base import Split
from expunge.testing.method_contract import MethodContract
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


class TestSFRonContract(MethodContract):
    method = SFRon(lr=0.02, batch_size=32, steps=15, inner_steps=4, forget_lr=0.02, refresh=5)
    margin = 0.3


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


def test_coefficients_are_the_powers_of_the_loss_that_fade_with_time() -> None:
    losses = torch.tensor([0.0, 0.01, 1.0, 4.0], requires_grad=True)
    found = coefficients(losses, 0.5, 0.25)
    assert not found.requires_grad
    assert found.tolist() == pytest.approx([0.75e3, 7.5, 0.75, 0.375], rel=1e-5)
    assert coefficients(losses, 0.0, 0.0).tolist() == [1, 1, 1, 1]
    assert coefficients(losses, 2.0, 1.0).tolist() == [0, 0, 0, 0]


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
    loss = WeightedAscent(0.5, 0.5)(model, batch)
    (slope,) = torch.autograd.grad(loss.value, model.weight)
    expected = torch.zeros(4, 3)
    for i in range(8):
        single = F.cross_entropy(model(batch.x[i : i + 1]), batch.y[i : i + 1])
        (one,) = torch.autograd.grad(single, model.weight)
        expected -= 0.5 * float(single.detach()) ** -0.5 * one / 8
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


@pytest.mark.parametrize("slow_rate", [1.0, 0.3])
def test_one_step_by_hand(slow_rate: float) -> None:
    given, model = request(), layer()
    method = SFRon(
        lr=0.2, batch_size=16, momentum=0, weight_decay=0, steps=1, inner_steps=1, forget_lr=0.5,
        slow_rate=slow_rate, temperature=0.5,
    )  # fmt: skip
    result = method(model, given).model
    granted = given.grant("sfron", SFRon.needs)
    forget, retain = next(granted.forget.batches(8)), next(granted.retain.batches(16))
    with granted.meter:
        masks = method.masks(model, granted)
    start = [p.detach().clone() for p in model.parameters()]
    losses = F.cross_entropy(model(forget.x), forget.y, reduction="none")
    slopes = torch.autograd.grad((losses.detach() ** -0.5 * losses).mean(), list(model.parameters()))
    fast = [p + 0.5 * m * s for p, m, s in zip(start, masks, slopes, strict=True)]
    fast = [p.requires_grad_(True) for p in fast]
    repair = torch.autograd.grad(F.cross_entropy(F.linear(retain.x, *fast), retain.y), fast)
    for was, moved, slope, now in zip(start, fast, repair, result.parameters(), strict=True):
        expected = was - slow_rate * (was - (moved - 0.2 * slope))
        assert torch.allclose(now, expected, atol=1e-6)


def test_work_is_counted_and_the_mask_is_refreshed() -> None:
    method = SFRon(batch_size=4, steps=5, inner_steps=3, refresh=2, fisher_batches=1)
    outcome = method(layer(), request())
    assert len(outcome.log) == 3
    assert outcome.cost.sample_gradients == 3 * 8 + 5 * (4 + 3 * 4)
    once = SFRon(batch_size=4, steps=5, inner_steps=3, refresh=0, fisher_batches=1)(layer(), request())
    assert len(once.log) == 1


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
    with pytest.raises(InvalidInput, match="temperature and refresh must be at least 0, got -1"):
        SFRon(temperature=-1.0)
    with pytest.raises(InvalidInput, match="threshold must be positive"):
        SFRon(threshold=0.0)
