from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.ulira import MIN_STD, leave_one_out
from expunge.seeding import generator


def population(models: int, examples: int, shift: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores N(0, 1) and, inside, N(shift, 1); each model is inside with probability one half."""
    source = generator(seed)
    inside = torch.rand(models, examples, generator=source) < 0.5
    scores = torch.randn(models, examples, generator=source, dtype=torch.float64)
    return scores + shift * inside, inside


def log_density(value: float, fitted: list[float]) -> float:
    mean = sum(fitted) / len(fitted)
    variance = sum((x - mean) ** 2 for x in fitted) / (len(fitted) - 1)
    std = max(math.sqrt(variance), MIN_STD)
    return -math.log(std * math.sqrt(2 * math.pi)) - (value - mean) ** 2 / (2 * std**2)


def one_by_one(scores: Tensor, inside: Tensor) -> list[list[float]]:
    found = []
    for victim in range(len(scores)):
        row = []
        for example in range(scores.shape[1]):
            others = [model for model in range(len(scores)) if model != victim]
            members = [float(scores[m, example]) for m in others if inside[m, example]]
            rest = [float(scores[m, example]) for m in others if not inside[m, example]]
            value = float(scores[victim, example])
            row.append(log_density(value, members) - log_density(value, rest))
        found.append(row)
    return found


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_ratios_equal_a_slow_loop(offset: float) -> None:
    scores, inside = population(14, 6, 1.0)
    attack = leave_one_out(scores + offset, inside)
    expected = torch.tensor(one_by_one(scores + offset, inside), dtype=torch.float64)
    torch.testing.assert_close(attack.ratios, expected, rtol=1e-9, atol=1e-9)
    for example in range(6):
        truth, ratio = inside[:, example], expected[:, example]
        assert float(attack.auc[example]) == pytest.approx(roc_auc_score(truth.numpy(), ratio.numpy()))
        rates = ((ratio[truth] > 0).double().mean() + (ratio[~truth] < 0).double().mean()) / 2
        assert float(attack.accuracy[example]) == pytest.approx(float(rates))


def test_the_victim_is_not_in_its_own_fit() -> None:
    """One model far from all: fitted with itself it would look at home on its own side."""
    scores, inside = population(20, 1, 0.0)
    victim = int(inside[:, 0].nonzero()[0])
    scores[victim] = 30.0
    within = [float(scores[m, 0]) for m in range(20) if inside[m, 0]]
    outside = [float(scores[m, 0]) for m in range(20) if not inside[m, 0]]
    leaky = log_density(30.0, within) - log_density(30.0, outside)
    honest = float(leave_one_out(scores, inside).ratios[victim, 0])
    assert leaky > 300
    assert honest < leaky - 100


def test_known_shift_gives_the_bayes_accuracy_and_auc() -> None:
    scores, inside = population(400, 40, 2.0)
    attack = leave_one_out(scores, inside)
    # two unit Gaussians 2 apart: accuracy Phi(1), AUC Phi(sqrt 2)
    assert float(attack.accuracy.mean()) == pytest.approx(0.8413, abs=0.01)
    assert float(attack.auc.mean()) == pytest.approx(0.9214, abs=0.01)
    assert attack.pooled().tpr_at(0.01) == pytest.approx(0.37, abs=0.06)


def test_nothing_to_tell_gives_about_one_half_from_below() -> None:
    attack = leave_one_out(*population(64, 400, 0.0))
    assert 0.42 < float(attack.accuracy.mean()) < 0.5
    assert 0.40 < float(attack.auc.mean()) < 0.5


def test_separated_scores_are_always_told() -> None:
    scores, inside = population(16, 5, 40.0)
    attack = leave_one_out(scores, inside)
    assert attack.accuracy.tolist() == attack.auc.tolist() == [1.0] * 5
    assert attack.tpr_at(0.5).tolist() == [1.0] * 5


def test_zero_variance_stays_finite() -> None:
    _, inside = population(16, 3, 0.0)
    same = leave_one_out(torch.full((16, 3), 7.0), inside)
    assert same.ratios.abs().max() == 0
    assert same.accuracy.tolist() == same.auc.tolist() == [0.5] * 3
    apart = leave_one_out(torch.where(inside, 7.0, 8.0), inside)
    assert bool(apart.ratios.isfinite().all())
    assert apart.accuracy.tolist() == [1.0] * 3


def test_refusals() -> None:
    scores, inside = population(12, 3, 1.0)
    inside[:, 1] = torch.arange(12) < 2
    with pytest.raises(
        InvalidInput, match=r"at least 3 models on each side.*example 1 has 2 inside and 10 outside"
    ):
        leave_one_out(scores, inside)
    inside[:, 1] = torch.arange(12) < 6
    with pytest.raises(InvalidInput, match="are expected; got"):
        leave_one_out(scores, inside[:, :2])
    with pytest.raises(InvalidInput, match="are expected; got"):
        leave_one_out(scores[:, :0], inside[:, :0])
    with pytest.raises(InvalidInput, match="1 of 12 models have scores that are not finite"):
        leave_one_out(scores.index_fill(0, torch.tensor([4]), math.nan), inside)
    with pytest.raises(InvalidInput, match=r"a false positive rate of 0\.01 needs at least 100 non-members"):
        leave_one_out(scores, inside).tpr_at(0.01)
