from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.data.digits import load_digits
from expunge.data.examples import Examples
from expunge.data.joined import in_memory
from expunge.methods import feature_neighbours as module
from expunge.methods import likeness as looks
from expunge.methods.feature_neighbours import Neighbours, feature_neighbours
from expunge.methods.relearn import Relearn
from expunge.methods.two_means import Cut, two_means
from expunge.seeding import generator
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

NUMERICS = Numerics(channels_last=False)
SEPARATION = Relearn().separation


class Slice(nn.Module):
    """Its only layer passes the input on, so that features are the inputs; a head that is none."""

    def __init__(self, size: int, n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.layer.weight)
        self.n_classes = n_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[:, : self.n_classes]


def of(positions: Tensor, count: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[positions] = True
    return mask


def neighbours(
    x: Tensor, labels: Tensor, known: Tensor, share: float = 0.9, n_classes: int = 2
) -> Neighbours:
    train = in_memory(x, labels, n_classes)
    model = Slice(x.shape[1], n_classes)
    return feature_neighbours(model, train, known, NUMERICS, separation=SEPARATION, share=share)


def nobody(result: Neighbours) -> None:
    assert not result.found.any()
    assert not result.good


def planted(seed: int = 0, strength: float = 8.0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (600, 24) of two labels; 60 of the 300 with label 0 have a trigger in one direction."""
    x = torch.randn(600, 24, generator=generator(seed))
    x[:, :4] *= 4  # directions that good examples vary in far more
    labels = torch.arange(600) % 2
    bad = (labels == 0).nonzero().flatten()[:60]
    x[bad, 9] += strength
    return x, labels, bad


# ---- two means


def slow_cut(values: list[float]) -> tuple[float, int]:
    """Least sum of squares within two parts of at least two, over every cut; and the size of the lower part."""
    ordered = sorted(values)

    def within(part: list[float]) -> float:
        mean = math.fsum(part) / len(part)
        return math.fsum((value - mean) ** 2 for value in part)

    return min((within(ordered[:k]) + within(ordered[k:]), k) for k in range(2, len(ordered) - 1))


@pytest.mark.parametrize("count", [4, 5, 17, 60])
@pytest.mark.parametrize("seed", range(3))
def test_cut_is_the_one_of_least_variance_within(count: int, seed: int) -> None:
    values = torch.randn(count, generator=generator(seed), dtype=torch.float64).pow(3) + 100
    cut = two_means(values)
    _, size = slow_cut(values.tolist())
    low, high = values.sort().values[:size], values.sort().values[size:]
    assert cut.threshold == pytest.approx(float(low[-1] + high[0]) / 2)
    pooled = math.sqrt(float(low.var() + high.var()) / 2)
    assert cut.separation == pytest.approx(float(high.mean() - low.mean()) / pooled)


def test_cut_by_hand() -> None:
    # Parts 0, 1, 2 and 10, 12: means 1 and 11, variances 1 and 2.
    cut = two_means(torch.tensor([12.0, 0.0, 2.0, 10.0, 1.0]))
    assert cut.threshold == 6.0
    assert cut.separation == pytest.approx(10 / math.sqrt(1.5))


def test_one_normal_distribution_is_cut_in_the_middle() -> None:
    cut = two_means(torch.randn(100_000, generator=generator(0)) * 3 + 5)
    # E|x| = sqrt(2 / pi); the variance of either half is 1 - 2 / pi
    expected = 2 * math.sqrt(2 / math.pi) / math.sqrt(1 - 2 / math.pi)
    assert cut.separation == pytest.approx(expected, abs=0.03)
    assert cut.threshold == pytest.approx(5, abs=0.1)


def test_equal_values_are_not_separated() -> None:
    assert two_means(torch.ones(10)).separation == 0
    assert two_means(torch.tensor([0.0] * 6 + [1.0] * 4)).threshold == 0.5


# ---- likeness


def slow_whitening(x: Tensor, labels: Tensor) -> Tensor:
    """The inverse square root of the covariance of rows (N, D) within their labels, with its ridge; float64."""
    x = x.double()
    zero = torch.zeros(x.shape[1], dtype=torch.float64)
    covariance = torch.outer(zero, zero)
    for row, label in zip(x, labels.tolist(), strict=True):
        mine = x[labels == label]
        deviation = row - sum(mine, zero) / len(mine)
        covariance += torch.outer(deviation, deviation) / len(x)
    ridge = looks._RIDGE * float(covariance.trace()) / x.shape[1]
    values, vectors = torch.linalg.eigh(covariance + ridge * torch.eye(x.shape[1]))
    root: Tensor = torch.linalg.inv(vectors @ values.sqrt().diag() @ vectors.T)
    return root


def slow_likeness(
    x: Tensor, members: list[int], base: list[int], whitening: Tensor | None
) -> list[list[float]]:
    """Cosine of each row with the sum of the other members, plain and whitened; float64, one example at a time.

    The mean is that of the rows ``base``.
    """
    x = x.double()
    mean = sum((x[i] for i in base), torch.zeros(x.shape[1], dtype=torch.float64)) / len(base)
    centred = [row - mean for row in x]
    found = []
    for mapped in (centred, *([[row @ whitening for row in centred]] if whitening is not None else [])):
        unit = [row / row.norm() for row in mapped]
        values = []
        for i, row in enumerate(unit):
            others = sum((unit[j] for j in members if j != i), torch.zeros(x.shape[1], dtype=torch.float64))
            values.append(float(row @ others / others.norm()))
        found.append(values)
    return found


def combined(columns: list[list[float]], member: Tensor, base: list[int]) -> Tensor:
    """The weighted sum of standardised likenesses; standardised and weighed over the rows ``base``."""
    views = torch.tensor(columns, dtype=torch.float64).T
    inside = member[base]
    views = (views - views[base].mean(0)) / views[base].std(0)
    gap = views[base][inside].mean(0) - views[base][~inside].mean(0)
    return views @ gap.clamp(min=0).square()


@dataclass(frozen=True)
class OneLabel:
    """Features (150, 6) of three labels about means of their own, and the 90 examples with label 0."""

    train: Examples
    x: Tensor
    maps: dict[str, Tensor]
    slow: Tensor | None

    @classmethod
    def drawn(cls, x: Tensor | None = None) -> OneLabel:
        features = torch.randn(150, 6, generator=generator(0)) @ torch.randn(6, 6, generator=generator(1)) + 5
        labels = torch.tensor([0] * 90 + [1] * 40 + [2] * 20)
        features[:, 0] += 10.0 * labels
        if x is not None:
            features[:90] = x
        train = in_memory(features, labels, 3)
        maps = looks.whitenings(Slice(6, 3), train, ["layer"], NUMERICS)
        slow = slow_whitening(features, labels) if maps else None
        return cls(train, features[:90], maps, slow)

    def likeness(self, known: Tensor) -> Any:
        examples = self.train.select(torch.arange(90))
        return looks.Likeness(Slice(6, 3), examples, known, ["layer"], self.maps, NUMERICS)


def test_whitening_is_by_the_covariance_within_the_labels() -> None:
    case = OneLabel.drawn()
    assert case.slow is not None
    assert torch.allclose(case.maps["layer"].double(), case.slow, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("members", [2, 7])
def test_likeness_equals_a_slow_loop_over_examples(
    members: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_WIDEST", 5 if wide else 6)
    case = OneLabel.drawn()
    assert bool(case.maps) is not wide  # a wide layer is taken plain only
    member = of(torch.randperm(90, generator=generator(2))[:members], 90)
    likeness = case.likeness(member)
    sample = likeness._sample
    assert sorted(sample.tolist()) == list(range(90))
    expected = slow_likeness(case.x, member.nonzero().flatten().tolist(), list(range(90)), case.slow)
    for view, values in zip(likeness._views, expected, strict=True):
        assert view.of_sample(member[sample]).tolist() == pytest.approx(
            [values[i] for i in sample.tolist()], abs=2e-4
        )
    total = combined(expected, member, list(range(90)))
    assert likeness(member).tolist() == pytest.approx(total.tolist(), rel=5e-3, abs=5e-3)


def test_likeness_to_an_only_member_is_that_of_the_plain_layer() -> None:
    case, member = OneLabel.drawn(), of(torch.tensor([4]), 90)
    centred = case.x - case.x.mean(0)
    cosine = torch.cosine_similarity(centred, centred[4:5])[~member]
    values = case.likeness(member)(member)[~member]
    assert ((values - values.mean()) / values.std()).tolist() == pytest.approx(
        ((cosine - cosine.mean()) / cosine.std()).tolist(), abs=1e-3
    )


def test_rows_beyond_the_sample_get_the_value_they_have_by_the_sample_s_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "_SAMPLE", 60)
    case = OneLabel.drawn()
    member = of(torch.arange(8) * 3, 90)
    likeness = case.likeness(member)
    base = likeness._sample.tolist()
    assert len(base) == 60
    assert set(member.nonzero().flatten().tolist()) <= set(base)
    slow = slow_likeness(case.x, (torch.arange(8) * 3).tolist(), base, case.slow)
    total = combined(slow, member, base)
    assert likeness(member).tolist() == pytest.approx(total.tolist(), rel=5e-3, abs=5e-3)


def test_a_row_beyond_the_sample_has_the_value_of_its_twin_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_SAMPLE", 60)
    x = torch.randn(90, 6, generator=generator(0))
    member = of(torch.arange(8), 90)
    base = OneLabel.drawn(x).likeness(member)._sample
    inside = base[~member[base]]
    outside = of(base, 90).logical_not().nonzero().flatten()
    x[outside] = x[inside[: len(outside)]]  # which rows are drawn does not depend on their values
    values = OneLabel.drawn(x).likeness(member)(member)
    assert values[outside].tolist() == pytest.approx(values[inside[: len(outside)]].tolist(), abs=1e-4)


# ---- who is found


@pytest.mark.parametrize(("count", "strength"), [(3, 20.0), (10, 8.0)])
def test_a_planted_trigger_is_found_among_good_examples(count: int, strength: float) -> None:
    x, labels, bad = planted(strength=strength)
    result = neighbours(x, labels, of(bad[:count], 600))
    found = result.found
    assert found.dtype == torch.bool
    assert not found[bad[:count]].any()
    assert int(found[bad].sum()) >= 0.9 * (60 - count)
    good = int(found.sum()) - int(found[bad].sum())
    assert good <= 3
    assert not found[labels == 1].any()
    assert set(result.good) == {0}
    assert abs(result.good[0] - good / int(found.sum())) <= 0.1


def test_a_planted_trigger_is_found_where_a_label_is_larger_than_the_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "_SAMPLE", 150)
    x, labels, bad = planted()
    found = neighbours(x, labels, of(bad[:10], 600)).found
    assert int(found[bad].sum()) >= 45
    assert int(found.sum()) - int(found[bad].sum()) <= 3


@pytest.mark.parametrize(("strength", "separated"), [(4.0, False), (7.0, True)])
def test_parts_that_do_not_lie_apart_are_a_beginning_and_no_more(strength: float, separated: bool) -> None:
    x, labels, bad = planted(strength=strength)
    known = of(bad[:10], 600)
    rows, model, train = (labels == 0).nonzero().flatten(), Slice(24, 2), in_memory(x, labels, 2)
    maps = looks.whitenings(model, train, ["layer"], NUMERICS)
    likeness = looks.Likeness(model, train.select(rows), known[rows], ["layer"], maps, NUMERICS)
    assert two_means(likeness(known[rows])).separation < SEPARATION - 0.2
    # All known ones have this label: more of them above a cut than of the others is enough to begin with.
    assert module._first_cut(likeness, True, SEPARATION, 0.1) is not None
    assert module._first_cut(likeness, False, SEPARATION, 0.1) is None
    result = neighbours(x, labels, known)
    if separated:
        assert int(result.found[bad].sum()) >= 45
        assert int(result.found.sum()) - int(result.found[bad].sum()) <= 4
    else:
        nobody(result)


@pytest.mark.parametrize(("count", "rule"), [(2, False), (6, True)])
def test_a_part_that_holds_known_examples_by_chance_is_no_rule(count: int, rule: bool) -> None:
    x = torch.randn(400, 24, generator=generator(0))
    x[:240, 0] += 40  # by chance all known ones lie in it with probability 0.6^2 and 0.6^6
    result = neighbours(x, torch.zeros(400, dtype=torch.int64), of(torch.arange(count), 400))
    if rule:
        assert int(result.found[:240].sum()) >= 220
        assert not result.found[240:].any()
    else:
        nobody(result)


@pytest.mark.parametrize(
    ("spread", "per_label", "rule"), [(3, 3, True), (10, 3, False), (10, 1, False), (2, 1, True)]
)
def test_known_ones_of_many_labels_are_as_many_chances(spread: int, per_label: int, rule: bool) -> None:
    labels = torch.arange(2000) // 200
    x = torch.randn(2000, 24, generator=generator(0))
    for label in range(10):
        x[label * 200 : label * 200 + 60, label] += 40  # by chance three lie in it with probability 0.3^3
    known = torch.cat([label * 200 + torch.arange(per_label) for label in range(spread)])
    result = neighbours(x, labels, of(known, 2000), n_classes=10)
    if rule:
        assert set(result.good) == set(range(spread))
    else:
        nobody(result)


@pytest.mark.parametrize("count", [6, 30, 100])
def test_labels_at_random_name_nobody(count: int) -> None:
    for seed in range(3):
        x = torch.randn(600, 24, generator=generator(seed))
        labels = torch.arange(600) % 3
        x[torch.arange(600), labels] += 6  # a network that has learned a wrong label sees that label
        known = torch.randperm(600, generator=generator(seed, "known"))[:count]
        nobody(neighbours(x, labels, of(known, 600), n_classes=3))


@pytest.mark.parametrize(("unlisted", "searched"), [(9, False), (10, True)])
def test_nobody_is_found_of_a_label_with_fewer_than_ten_unlisted_examples(
    unlisted: int, searched: bool
) -> None:
    x = torch.randn(3 + unlisted, 8, generator=generator(0))
    x[:6, 0] += 40
    found = neighbours(
        x, torch.zeros(3 + unlisted, dtype=torch.int64), of(torch.arange(3), 3 + unlisted), 1.0
    ).found
    assert bool(found.any()) is searched


def test_more_than_the_share_does_not_count() -> None:
    x, labels, bad = planted()
    known = of(bad[:10], 600)
    found = int(neighbours(x, labels, known).found.sum())
    nobody(neighbours(x, labels, known, share=(found - 0.5) / 290))
    assert int(neighbours(x, labels, known, share=(found + 0.5) / 290).found.sum()) == found


def test_model_and_generators_stay_as_they_are() -> None:
    x, labels, bad = planted()
    model = Slice(24, 2).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    feature_neighbours(
        model, in_memory(x, labels, 2), of(bad[:5], 600), NUMERICS, separation=SEPARATION, share=0.5
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert not any(layer._forward_hooks for layer in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_that_do_not_run_and_networks_without_layers_are_no_error() -> None:
    x, labels, bad = planted()
    known, train = of(bad[:10], 600), in_memory(x, labels, 2)
    model = Slice(24, 2)
    model.unused = nn.Linear(3, 3)
    assert feature_neighbours(model, train, known, NUMERICS, separation=SEPARATION, share=0.5).found.any()
    alone = nn.Linear(24, 2)
    nobody(feature_neighbours(alone, train, known, NUMERICS, separation=SEPARATION, share=0.5))


@dataclass
class Same:
    """A likeness that does not depend on the members."""

    known: Tensor
    values: Tensor

    def __call__(self, member: Tensor) -> Tensor:
        del member
        return self.values


def test_a_first_cut_that_lies_apart_stands_where_a_second_does_not() -> None:
    draw = torch.Generator().manual_seed(0)
    apart = torch.cat([torch.full((30,), 6.0), torch.zeros(170)]) + torch.randn(200, generator=draw)
    likeness: Any = Same(of(torch.arange(10), 200), torch.rand(200, generator=draw))
    parts = two_means(apart)
    assert parts.separation > 4.5
    assert two_means(likeness.values).separation < 4
    above, good = module._refined(likeness, (apart, parts), 4.2)
    assert torch.equal(above, apart > parts.threshold)
    assert good is not None
    assert good < 0.1  # the tail is heavier than that of these normal draws
    # A first cut that was read off the known ones needs a second.
    _, good = module._refined(likeness, (apart, Cut(parts.threshold, 0.0)), 4.2)
    assert good is None


# ---- how many of them are good


@pytest.fixture(scope="module")
def exchanged() -> tuple[nn.Module, Callable[[float], Problem]]:
    """A network that has learned digits of which 100 of two classes are exchanged, and its problem by what is known."""
    data, recipe = load_digits(), Recipe(model="convnet", epochs=20, batch_size=32, augment=False)

    def problem(discovery: float) -> Problem:
        return CorruptionTask(regularity=0.5, discovery=discovery, n_corrupted=100, seed=3).build(data)

    first = problem(1.0)
    model = recipe.build(first.shape, first.n_classes, generator(3, "initialisation"))
    recipe.train(model, first.split.train, 3, NUMERICS, Meter())
    return model, problem


@pytest.mark.trains
@pytest.mark.parametrize("discovery", [0.1, 0.3, 0.6])
def test_the_share_of_good_ones_is_right_within_ten_points(
    discovery: float, exchanged: tuple[nn.Module, Callable[[float], Problem]]
) -> None:
    model, problem = exchanged[0], exchanged[1](discovery)
    train, known = problem.split.train, problem.split.forget_mask
    result = feature_neighbours(model, train, known, NUMERICS, separation=SEPARATION, share=0.5)
    assert problem.truth is not None
    bad = of(problem.truth.corrupted, len(train))
    counts = {label: int((result.found & (train.labels == label)).sum()) for label in result.good}
    stated = sum(good * counts[label] for label, good in result.good.items()) / sum(counts.values())
    assert stated == pytest.approx(float((~bad)[result.found].float().mean()), abs=0.1)


@pytest.mark.trains
def test_of_a_complete_list_hardly_anybody_is_a_neighbour(
    exchanged: tuple[nn.Module, Callable[[float], Problem]],
) -> None:
    model, problem = exchanged[0], exchanged[1](1.0)
    known = problem.split.forget_mask
    result = feature_neighbours(model, problem.split.train, known, NUMERICS, separation=SEPARATION, share=0.5)
    assert int(result.found.sum()) <= 2
