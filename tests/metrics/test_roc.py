from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.roc import Roc, bootstrap


def scores(count: int, shift: float, seed: int, ties: bool) -> Tensor:
    found = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    return found.mul(2).round() if ties else found


def auc_of_pairs(members: Tensor, others: Tensor) -> float:
    wins = sum((m > o) + (m == o) / 2 for m in members.tolist() for o in others.tolist())
    return wins / (len(members) * len(others))


def best_threshold(members: Tensor, others: Tensor, fpr: float) -> float:
    best = 0.0
    for threshold in [*members.tolist(), *others.tolist()]:
        if float((others >= threshold).double().mean()) <= fpr:
            best = max(best, float((members >= threshold).double().mean()))
    return best


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.5])
def test_auc_and_low_end_equal_slow_loops(shift: float, ties: bool) -> None:
    members, others = scores(70, shift, 1, ties), scores(100, 0.0, 2, ties)
    roc = Roc(members, others)
    assert roc.auc() == pytest.approx(auc_of_pairs(members, others), abs=1e-12)
    for fpr in (0.01, 0.02, 0.1, 0.29, 0.5, 1.0):
        assert roc.tpr_at(fpr) == pytest.approx(best_threshold(members, others, fpr), abs=1e-12)


def test_separated_equal_and_reversed_scores() -> None:
    low, high = torch.linspace(0, 1, 100), torch.linspace(2, 3, 50)
    assert Roc(high, low).auc() == 1.0
    assert Roc(high, low).tpr_at(0.01) == 1.0
    assert Roc(low, high).auc() == 0.0
    assert Roc(low, low).auc() == 0.5
    constant = Roc(torch.zeros(10), torch.zeros(100))
    assert constant.auc() == 0.5
    # one score for all: no threshold keeps a tenth of them out
    assert constant.tpr_at(0.1) == 0.0
    assert constant.tpr_at(1.0) == 1.0


def test_a_threshold_takes_ties_together() -> None:
    others = torch.tensor([5.0] * 3 + [0.0] * 7)
    members = torch.tensor([6.0, 5.0, 5.0, 0.0])
    # three others share the score 5: at a rate below 0.3 none of the members that tie with them is caught
    assert Roc(members, others).tpr_at(0.29) == 0.25
    assert Roc(members, others).tpr_at(0.3) == 0.75


def test_a_rate_that_rounds_below_its_count() -> None:
    assert 0.29 * 100 < 29
    assert Roc(torch.tensor([71.0]), torch.arange(100.0)).tpr_at(0.29) == 1.0


def test_a_low_rate_needs_enough_non_members() -> None:
    members = torch.ones(5)
    for fpr, count in ((0.001, 1000), (0.01, 100)):
        assert Roc(members, torch.zeros(count)).tpr_at(fpr) == 1.0
        with pytest.raises(InvalidInput, match=f"needs at least {count} non-members, got {count - 1}"):
            Roc(members, torch.zeros(count - 1)).tpr_at(fpr)


@pytest.mark.parametrize("bad", [torch.tensor([]), torch.tensor([0.0, math.nan]), torch.zeros(2, 2)])
def test_refusals(bad: Tensor) -> None:
    with pytest.raises(InvalidInput, match="the scores of the members must be 1-D, at least one and none"):
        Roc(bad, torch.ones(3))
    with pytest.raises(InvalidInput, match="the scores of the non-members"):
        Roc(torch.ones(3), bad)
    for fpr in (0.0, 1.1, -1.0, math.nan):
        with pytest.raises(InvalidInput, match=r"must lie in \(0, 1\]"):
            Roc(torch.ones(3), torch.ones(3)).tpr_at(fpr)
    with pytest.raises(InvalidInput, match="at least 100 resamples, got 99"):
        bootstrap(Roc(torch.ones(3), torch.ones(3)), [Roc.auc], torch.Generator(), 99)


def test_a_resample_keeps_the_sizes_and_draws_from_its_own_group() -> None:
    roc = Roc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0, 1.5]))
    for seed in range(20):
        again = roc.resampled(torch.Generator().manual_seed(seed))
        assert [len(again._members), len(again._others)] == [2, 3]
        assert again.auc() == 1.0


def test_the_bootstrap_follows_its_generator_and_covers_the_estimate() -> None:
    roc = Roc(scores(200, 0.5, 1, False), scores(300, 0.0, 2, False))
    statistics = [Roc.auc, lambda found: found.tpr_at(0.1)]
    first = bootstrap(roc, statistics, torch.Generator().manual_seed(7), 200)
    assert first == bootstrap(roc, statistics, torch.Generator().manual_seed(7), 200)
    assert first != bootstrap(roc, statistics, torch.Generator().manual_seed(8), 200)
    for statistic, (low, high) in zip(statistics, first, strict=True):
        assert low < statistic(roc) < high


def test_the_interval_of_the_auc_covers_the_truth_at_its_rate() -> None:
    truth = 0.5 * (1 + math.erf(0.7 / 2))  # P(N(0.7, 1) > N(0, 1))
    draw = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(120):
        roc = Roc(scores(120, 0.7, 2 * seed, False), scores(120, 0.0, 2 * seed + 1, False))
        ((low, high),) = bootstrap(roc, [Roc.auc], draw, 100)
        covered += low <= truth <= high
    # binomial(120, 0.95) lies in 106..119 with probability 0.995
    assert 106 <= covered <= 119
