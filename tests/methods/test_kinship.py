from __future__ import annotations

import copy
import math

import pytest
import torch
from corrupted_digits import corrupted_digits
from torch import Tensor

from expunge.methods.base import Request
from expunge.methods.kinship import Cut, kin, label_margin, two_means
from expunge.methods.rem_discovery import REMDiscovery
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.testing.method_contract import Case, image_case
from expunge.training.loop import accuracy

DEFAULT = REMDiscovery()


def granted(case: Case, seed: int = 0) -> Request:
    return case.request(DEFAULT, seed).grant(DEFAULT.name, DEFAULT.needs)


def named(case: Case, request: Request, share: float = DEFAULT.kin_cap) -> Tensor:
    return kin(
        case.model,
        request,
        rise=DEFAULT.rise,
        lr=DEFAULT.probe_lr,
        separation=DEFAULT.separation,
        share=share,
    )


def of(positions: Tensor, count: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[positions] = True
    return mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_label_margin_equals_a_loop(dtype: torch.dtype) -> None:
    logits = torch.randn(40, 5, generator=generator(0), dtype=torch.float64) * 5
    labels = torch.randint(0, 5, (40,), generator=generator(1))
    margins = label_margin(logits.to(dtype), labels)
    assert margins.dtype == torch.float32
    for row, label, value in zip(logits.tolist(), labels.tolist(), margins.tolist(), strict=True):
        total = math.fsum(math.exp(z) for z in row)
        log_p = [math.log(math.exp(z) / total) for z in row]
        best = max(value for j, value in enumerate(log_p) if j != label)
        assert value == pytest.approx(best - log_p[label], abs=1e-4)


def test_label_margin_is_finite_where_a_probability_underflows() -> None:
    margins = label_margin(torch.tensor([[500.0, 0.0, -500.0]]), torch.tensor([0]))
    assert margins.tolist() == [-500.0]


def slow_cut(values: list[float]) -> tuple[float, int]:
    """Least sum of squares within two parts of at least two, over every cut; and the size of the lower part."""
    ordered = sorted(values)

    def within(part: list[float]) -> float:
        mean = math.fsum(part) / len(part)
        return math.fsum((value - mean) ** 2 for value in part)

    return min((within(ordered[:k]) + within(ordered[k:]), k) for k in range(2, len(ordered) - 1))


@pytest.mark.parametrize("count", [4, 5, 17, 60])
@pytest.mark.parametrize("seed", range(5))
def test_cut_is_the_one_of_least_variance_within(count: int, seed: int) -> None:
    draw = generator(seed)
    values = torch.randn(count, generator=draw, dtype=torch.float64).pow(3) + 100
    cut = two_means(values)
    least, size = slow_cut(values.tolist())
    low, high = values.sort().values[:size], values.sort().values[size:]
    assert float((low - low.mean()).square().sum() + (high - high.mean()).square().sum()) == pytest.approx(
        least
    )
    assert cut.share == (values > cut.threshold).double().mean() == len(high) / count
    assert cut.threshold == pytest.approx(float(low[-1] + high[0]) / 2)
    assert cut.distance == pytest.approx(float(high.mean() - low.mean()))
    pooled = math.sqrt(float(low.var() + high.var()) / 2)
    assert cut.separation == pytest.approx(cut.distance / pooled)


def test_one_normal_distribution_is_cut_in_the_middle() -> None:
    cut = two_means(torch.randn(200_000, generator=generator(0)) * 3 + 5)
    # E|x| = sqrt(2 / pi); the variance of either half is 1 - 2 / pi
    expected = 2 * math.sqrt(2 / math.pi) / math.sqrt(1 - 2 / math.pi)
    assert expected == pytest.approx(2.6, abs=0.05)
    assert cut.separation == pytest.approx(expected, abs=0.02)
    assert cut.share == pytest.approx(0.5, abs=0.02)
    assert cut.threshold == pytest.approx(5, abs=0.06)
    assert cut.distance == pytest.approx(6 * math.sqrt(2 / math.pi), rel=0.01)


def test_two_distant_parts_are_told_apart() -> None:
    draw = generator(0)
    values = torch.cat([torch.randn(300, generator=draw), torch.randn(100, generator=draw) + 20])
    cut = two_means(values[torch.randperm(400, generator=draw)])
    assert cut.share == 0.25
    assert cut.distance == pytest.approx(20, abs=0.4)
    assert cut.separation == pytest.approx(20, abs=2)


def test_equal_values_are_not_separated() -> None:
    assert two_means(torch.ones(10)) == Cut(threshold=1.0, share=0.8, distance=0.0, separation=0.0)
    apart = two_means(torch.tensor([0.0] * 6 + [1.0] * 4))
    assert (apart.threshold, apart.share, apart.distance) == (0.5, 0.4, 1.0)
    assert apart.separation > 1e6


def test_planted_poison_is_named() -> None:
    case = corrupted_digits(1.0, 0.2)
    request = granted(case)
    before, modes = copy.deepcopy(case.model.state_dict()), [m.training for m in case.model.modules()]
    state = torch.get_rng_state()
    found = named(case, request)
    assert found.dtype == torch.bool
    assert found.shape == (1437,)
    assert not found[request.forget_mask].any()
    assert set(request.train.labels[found].tolist()) == {0}
    bad = of(case.truth.corrupted, 1437)
    assert float(bad[found].double().mean()) >= 0.9
    assert int((bad & found).sum()) >= 0.8 * len(case.truth.unknown)
    # two halves of the members of D_f, at most thirty passes over each
    assert 0 < request.meter.sample_gradients <= 30 * len(request.forget)
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.model.state_dict().items())
    assert all(parameter.grad is None for parameter in case.model.parameters())
    assert [m.training for m in case.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(named(case, granted(case)), found), "the same seed named others"


def test_more_than_the_share_is_not_named() -> None:
    case = corrupted_digits(1.0, 0.2)
    assert not named(case, granted(case), share=0.1).any()


def test_nobody_is_named_where_nothing_else_is_corrupted() -> None:
    case = corrupted_digits(1.0, 1.0)
    assert len(case.truth.unknown) == 0
    assert not named(case, granted(case)).any()


def test_nobody_is_named_for_labels_at_random() -> None:
    case = corrupted_digits(0.0, 0.2)
    assert accuracy(case.model, case.split.forget, case.numerics) > 0.8
    request = granted(case)
    assert not named(case, request).any()


@pytest.mark.parametrize(
    "forget",
    [
        torch.tensor([0]),  # one example has no halves
        torch.arange(0, 192, 4),  # every label as often as chance would have it
    ],
)
def test_labels_that_tell_nothing_are_not_probed(forget: Tensor) -> None:
    case = image_case()
    request = Request(Split(case.split.train, forget), seed=0, numerics=case.numerics)
    request = request.grant(DEFAULT.name, DEFAULT.needs)
    assert not named(case, request).any()
    assert request.meter.sample_gradients == 0


def test_a_label_with_hardly_anyone_else_is_not_probed() -> None:
    case = image_case()
    members = (case.split.train.labels == 0).nonzero().flatten()
    for left, probed in ((9, False), (10, True)):
        request = Request(Split(case.split.train, members[left:]), seed=0, numerics=case.numerics)
        request = request.grant(DEFAULT.name, DEFAULT.needs)
        named(case, request)
        assert (request.meter.sample_gradients > 0) is probed
