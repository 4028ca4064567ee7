from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.forgetting_quality import epsilons, final_score, forgetting_quality
from expunge.seeding import generator


def draw(models: int, examples: int, mean: float, std: float, seed: int) -> Tensor:
    return mean + std * torch.randn(models, examples, generator=generator(seed), dtype=torch.float64)


def bound(fpr: float, fnr: float) -> float | None:
    if fpr == fnr == 0:
        return math.inf
    if fpr == 0 or fnr == 0:
        return None
    terms = [math.log(1 - 1e-5 - a) - math.log(b) for a, b in ((fpr, fnr), (fnr, fpr)) if 1 - 1e-5 - a > 0]
    return max(terms) if terms else None


def slow(unlearned: list[float], retrained: list[float]) -> float:
    n = len(unlearned)
    ranges = [max(scores) - min(scores) for scores in (unlearned, retrained)]
    if min(ranges) / max(ranges) < 0.01:
        return 50.0
    high, low = (
        (retrained, unlearned)
        if statistics.median(retrained) > statistics.median(unlearned)
        else (unlearned, retrained)
    )
    narrow, wide = (retrained, unlearned) if ranges[1] < ranges[0] else (unlearned, retrained)
    values = sorted(unlearned + retrained)
    found = [bound(sum(x >= t for x in low) / n, sum(x < t for x in high) / n) for t in values]
    for a in values:
        for b in values:
            if a <= b:
                false_positives = sum(a <= x <= b for x in wide)
                found.append(bound(false_positives / n, sum(not a <= x <= b for x in narrow) / n))
    kept = [value for value in found if value is not None]
    return min(max(max(kept), 0.0), 50.0)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 1.0), (0.0, 0.3), (-1.0, 3.0), (6.0, 1.0)])
def test_equals_a_slow_loop(mean: float, std: float) -> None:
    """Rounded scores, so that there are ties; a normal input raises nothing."""
    unlearned, retrained = draw(15, 8, mean, std, 1), draw(15, 8, 0.0, 1.0, 2)
    for digits in (1, 6):
        one, two = unlearned.round(decimals=digits), retrained.round(decimals=digits)
        pairs = zip(one.T.tolist(), two.T.tolist(), strict=True)
        assert epsilons(one, two).tolist() == pytest.approx([slow(*pair) for pair in pairs])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = draw(20, 7, 0.5, 1.0, 3), draw(20, 7, 0.0, 1.0, 4)
    whole = epsilons(one, two)
    monkeypatch.setattr("expunge.metrics.forgetting_quality._CHUNK", 3200)
    assert torch.equal(epsilons(one, two), whole)


def test_closed_form_of_one_rule() -> None:
    """Nine of ten on the right side, both ways: every better rule has an error of 0 on one side."""
    unlearned = torch.tensor([[0.0]] * 9 + [[1.0]])
    retrained = torch.tensor([[1.0]] * 9 + [[0.0]])
    assert float(epsilons(unlearned, retrained)) == pytest.approx(math.log(0.9 - 1e-5) - math.log(0.1))
    assert forgetting_quality(unlearned, retrained) == 2.0**-4  # 2.197 is in the fifth bin
    assert float(epsilons(retrained, unlearned)) == pytest.approx(math.log(0.9 - 1e-5) - math.log(0.1))


def test_separated_populations_score_nothing() -> None:
    unlearned, retrained = draw(64, 5, 30.0, 1.0, 5), draw(64, 5, 0.0, 1.0, 6)
    assert epsilons(unlearned, retrained).tolist() == [50.0] * 5
    assert forgetting_quality(unlearned, retrained) == 0
    narrow_inside = 0.05 * draw(64, 5, 0.0, 1.0, 5)
    hollow = torch.where(torch.arange(64)[:, None] % 2 == 0, 2.0, -2.0) + 0.1 * retrained
    assert epsilons(narrow_inside, hollow).tolist() == [50.0] * 5  # only a double threshold tells them


def test_peaky_and_constant_populations() -> None:
    retrained = draw(32, 3, 0.0, 1.0, 7)
    assert epsilons(1e-4 * retrained, retrained).tolist() == [50.0] * 3
    assert epsilons(torch.zeros(32, 3), retrained).tolist() == [50.0] * 3
    assert epsilons(torch.zeros(4, 2), torch.zeros(4, 2)).tolist() == [0.0] * 2
    assert epsilons(torch.zeros(4, 2), torch.ones(4, 2)).tolist() == [50.0] * 2


def test_one_tie_leaves_a_rule() -> None:
    unlearned, retrained = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.0], [3.0], [4.0]])
    assert float(epsilons(unlearned, retrained)) == slow([0.0, 1.0, 2.0], [2.0, 3.0, 4.0])


def test_more_alike_scores_higher() -> None:
    retrained = draw(64, 40, 0.0, 1.0, 8)
    scores = [forgetting_quality(draw(64, 40, shift, 1.0, 9), retrained) for shift in (0.0, 1.0, 2.0, 5.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 2 * scores[1]
    assert scores[3] < 0.03


def test_final_score() -> None:
    kept = {"retain": 0.9, "retain_of_retrained": 1.0, "test": 0.4, "test_of_retrained": 0.8}
    assert final_score(0.5, **kept) == pytest.approx(0.225)
    with pytest.raises(
        InvalidInput, match=r"those of the retrained models above 0, got 0\.5, 0\.9, 0, 0\.4, 0\.8"
    ):
        final_score(0.5, **{**kept, "retain_of_retrained": 0.0})
    with pytest.raises(InvalidInput, match=r"must lie in \[0, 1\]"):
        final_score(1.5, **kept)


def test_refusals() -> None:
    scores = draw(5, 3, 0.0, 1.0, 10)
    with pytest.raises(InvalidInput, match=r"as many unlearned as retrained models .* got 5 and 4"):
        epsilons(scores, scores[:4])
    with pytest.raises(InvalidInput, match=r"at least 3 of each .* got 2 and 2"):
        forgetting_quality(scores[:2], scores[:2])
    with pytest.raises(InvalidInput, match="models have scores that are not finite"):
        epsilons(scores * math.nan, scores)
    with pytest.raises(InvalidInput, match=r"delta must lie in \[0, 1\)"):
        epsilons(scores, scores, delta=1.0)
