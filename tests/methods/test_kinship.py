from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from corrupted_digits import corrupted_digits
from torch import Tensor, nn

from expunge.data.joined import in_memory
from expunge.methods.kinship import Cut, kin, likenesses, two_means
from expunge.methods.rem_discovery import REMDiscovery
from expunge.seeding import generator
from expunge.testing.method_contract import Case
from expunge.training.loop import accuracy
from expunge.training.numerics import Numerics

DEFAULT = REMDiscovery()


def named(case: Case, share: float = DEFAULT.kin_cap, known: Tensor | None = None) -> Tensor:
    train = case.split.train
    mask = of(case.split.forget_positions if known is None else known, len(train))
    return kin(case.model, train, mask, case.numerics, separation=DEFAULT.separation, share=share)


def of(positions: Tensor, count: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[positions] = True
    return mask


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


@pytest.mark.trains
def test_planted_poison_is_named(margin: Callable[..., None]) -> None:
    case = corrupted_digits(1.0, 0.05)
    before, modes = copy.deepcopy(case.model.state_dict()), [m.training for m in case.model.modules()]
    state = torch.get_rng_state()
    found = named(case)
    assert found.dtype == torch.bool
    assert found.shape == (1437,)
    assert len(case.split.forget_positions) == 5
    assert not found[case.split.forget_positions].any()
    assert set(case.split.train.labels[found].tolist()) == {0}
    bad = of(case.truth.corrupted, 1437)
    margin("precision", bad[found].double().mean(), above=0.95)
    margin("recall", int((bad & found).sum()) / len(case.truth.unknown), above=0.95)
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.model.state_dict().items())
    assert all(parameter.grad is None for parameter in case.model.parameters())
    assert [m.training for m in case.model.modules()] == modes
    assert not any(module._forward_hooks for module in case.model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.trains
def test_more_than_the_share_is_not_named() -> None:
    assert not named(corrupted_digits(1.0, 0.2), share=0.1).any()


def narrowing() -> nn.Module:
    """A first layer that passes its 16 inputs on, a second one that passes on the last eight, and a head."""
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3))
    with torch.no_grad():
        for layer, kept in ((model[0], slice(0, 16)), (model[1], slice(8, 16))):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[kept, kept] = torch.eye(16)[kept, kept]
    return model


def test_a_layer_that_would_name_too_many_does_not_hide_another() -> None:
    x = torch.randn(200, 16, generator=generator(0))
    x[:140, 0] += 100  # seen by the first layer
    x[:60, 8] += 12  # by the second
    train, model = in_memory(x, torch.zeros(200, dtype=torch.int64), 3), narrowing()
    numerics, known = Numerics(channels_last=False), of(torch.arange(5), 200)
    for share, others in ((0.9, range(5, 140)), (0.5, range(5, 60))):
        found = kin(model, train, known, numerics, separation=4.0, share=share)
        assert found.nonzero().flatten().tolist() == list(others)


@pytest.mark.trains
def test_hardly_anybody_is_named_where_nothing_else_is_corrupted(margin: Callable[..., None]) -> None:
    case = corrupted_digits(1.0, 1.0)
    assert len(case.truth.unknown) == 0
    # All of the poison is known, so the cut lies between it and the clean images of its label.
    margin("rows named", int(named(case).sum()), below=3)


@pytest.mark.trains
def test_nobody_is_named_for_labels_at_random(margin: Callable[..., None]) -> None:
    for discovery in (0.2, 1.0):
        case = corrupted_digits(0.0, discovery)
        margin("forget accuracy before", accuracy(case.model, case.split.forget, case.numerics), above=0.8)
        assert not named(case).any()


def test_a_label_that_is_named_no_more_often_than_others_needs_more() -> None:
    x = torch.randn(400, 16, generator=generator(0))
    labels = torch.arange(400) % 2
    x[labels == 0, 3] += (torch.arange(200) < 60) * 12
    train, model, numerics = in_memory(x, labels, 2), Slice(16, 2), Numerics(channels_last=False)
    zeros, ones = ((labels == label).nonzero().flatten() for label in (0, 1))
    (likeness,) = likenesses(model, train.select(zeros), torch.arange(200) < 8, ["layer"], numerics).values()
    there = two_means(likeness).separation
    for known, needed in ((zeros[:8], 1.0), (torch.cat([zeros[:8], ones[:8]]), 1.2)):
        for separation, found in ((there / needed * 0.99, 52), (there / needed * 1.01, 0)):
            named = kin(model, train, of(known, 400), numerics, separation=separation, share=0.9)
            assert int(named[zeros].sum()) == found


def test_a_label_of_which_nearly_all_known_are_above_the_cut_needs_less() -> None:
    x = torch.randn(400, 16, generator=generator(0))
    labels = torch.arange(400) % 2
    x[labels == 0, 3] += (torch.arange(200) < 60) * 12
    train, model, numerics = in_memory(x, labels, 2), Slice(16, 2), Numerics(channels_last=False)
    zeros = (labels == 0).nonzero().flatten()
    # All known ones and about a quarter of the others are above the cut: with 8 by chance more often than once in a
    # million, with 20 less.
    for count, needed in ((8, 1.0), (20, 0.9)):
        member = torch.arange(200) < count
        (likeness,) = likenesses(model, train.select(zeros), member, ["layer"], numerics).values()
        there = two_means(likeness).separation
        for separation, found in ((there / needed * 0.99, 60 - count), (there / needed * 1.01, 0)):
            named = kin(model, train, of(zeros[:count], 400), numerics, separation=separation, share=0.9)
            assert int(named.sum()) == found


def test_of_many_known_the_layer_that_tells_them_best_decides_and_of_few_the_one_farthest_apart() -> None:
    x = torch.randn(200, 16, generator=generator(0))
    x[:80, 0] += 100  # seen by the first layer alone: every known one, and others
    x[:60, 8] += 12
    labels = (torch.arange(200) >= 190).long()  # the known ones name label 0 only
    train, model, numerics = in_memory(x, labels, 3), narrowing(), Numerics(channels_last=False)
    for count, last in ((5, 80), (20, 60)):
        found = kin(model, train, of(torch.arange(count), 200), numerics, separation=3.0, share=0.9)
        assert found.nonzero().flatten().tolist() == list(range(count, last))


class Slice(nn.Module):
    """Its only layer passes the input on, so that likeness is a matter of the inputs."""

    def __init__(self, size: int, n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.layer.weight)
        self.n_classes = n_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[:, : self.n_classes]


@pytest.mark.parametrize("members", [2, 7])
def test_likeness_equals_a_loop(members: int) -> None:
    x = torch.randn(1030, 6, generator=generator(0)) + 5  # more than one batch
    member = torch.zeros(1030, dtype=torch.bool)
    member[torch.randperm(1030, generator=generator(1))[:members]] = True
    examples = in_memory(x, torch.zeros(1030, dtype=torch.int64), 3)
    found = likenesses(Slice(6, 3), examples, member, ["layer"], Numerics(channels_last=False))
    assert list(found) == ["layer"]
    unit = [row / row.norm() for row in x.double() - x.double().mean(0)]
    for i in (0, 1029, *member.nonzero().flatten().tolist()):
        other = sum((unit[j] for j in range(1030) if member[j] and j != i), torch.zeros(6))
        assert float(found["layer"][i]) == pytest.approx(float(unit[i] @ other / other.norm()), abs=1e-5)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_planted_direction_is_named_from_one_member_or_two(sign: float, members: int) -> None:
    x = torch.randn(200, 16, generator=generator(0))
    x[:60, 3] += sign * 12
    train = in_memory(x, torch.arange(200) % 2, 2)
    known = of(torch.arange(members) * 2, 200)
    found = kin(Slice(16, 2), train, known, Numerics(channels_last=False), separation=4.0, share=0.5)
    # Only label 0 has known ones.
    assert found.nonzero().flatten().tolist() == list(range(2 * members, 60, 2))


@pytest.mark.parametrize(("others", "searched"), [(9, False), (10, True)])
def test_a_label_of_few_others_is_not_searched(others: int, searched: bool) -> None:
    x = torch.randn(3 + others, 8, generator=generator(0))
    x[:8, 0] += 40
    train = in_memory(x, torch.zeros(3 + others, dtype=torch.int64), 2)
    known = of(torch.arange(3), 3 + others)
    found = kin(Slice(8, 2), train, known, Numerics(channels_last=False), separation=4.0, share=1.0)
    assert int(found.sum()) == (5 if searched else 0)


def test_of_an_only_known_example_the_likeness_to_it_is_what_is_cut() -> None:
    x = torch.randn(50, 6, generator=generator(0))
    train, member = in_memory(x, torch.zeros(50, dtype=torch.int64), 2), torch.arange(50) == 3
    numerics = Numerics(channels_last=False)
    (likeness,) = likenesses(Slice(6, 2), train, member, ["layer"], numerics).values()
    assert float(likeness[3]) == pytest.approx(0, abs=1e-3)
    unit = nn.functional.normalize(x - x.mean(0), dim=1)
    expected = unit @ unit[3]
    assert likeness[~member].tolist() == pytest.approx(expected[~member].tolist(), abs=1e-5)
    cut = two_means(expected[~member])
    found = kin(Slice(6, 2), train, member, numerics, separation=cut.separation / 1.21, share=1.0)
    assert torch.equal(found, (expected > cut.threshold) & ~member)
    assert not kin(Slice(6, 2), train, member, numerics, separation=cut.separation / 1.19, share=1.0).any()


def test_one_example_with_a_label_at_random_names_nobody() -> None:
    case = corrupted_digits(0.0, 0.2)
    for position in case.split.forget_positions[:8].tolist():
        assert not named(case, known=torch.tensor([position])).any()


def test_layers_that_do_not_run_are_left_out() -> None:
    model = Slice(8, 2)
    model.unused = nn.Linear(3, 3)
    x = torch.randn(40, 8, generator=generator(0))
    train = in_memory(x, torch.zeros(40, dtype=torch.int64), 2)
    kin(model, train, of(torch.arange(3), 40), Numerics(channels_last=False), separation=4.0, share=1.0)
