from __future__ import annotations

import math

import pytest
import torch

from expunge.detection.cut import known_cut, lower_limit, most_errors, stand_out


def test_the_cut_is_the_best_of_all_by_a_slow_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    bad = torch.arange(400) < 60
    scores = torch.rand(400, generator=draw, dtype=torch.float64) + 0.7 * bad
    known = bad & (torch.rand(400, generator=draw) < 0.4)
    merits = {}
    for threshold in scores[known].tolist():
        share = int((scores[~known] >= threshold).sum()) / int((~known).sum())
        n, k = int(known.sum()), int((scores[known] >= threshold).sum())
        p = k / n
        low = (p + 1 / (2 * n) - math.sqrt(p * (1 - p) / n + 1 / (4 * n * n))) / (1 + 1 / n)
        merits[threshold] = (low**2 / max(share, 1 / int((~known).sum())), share, p)
    merit, share, recall = max(merits.values())
    found = known_cut(scores, known)
    assert found.merit == pytest.approx(merit)
    assert found.recall == pytest.approx(recall)
    assert found.count == round(share * int((~known).sum()))


def test_wilsons_limit() -> None:
    # p = 1: (1 + z^2 / 2n - z sqrt(z^2 / 4n^2)) / (1 + z^2 / n) = n / (n + z^2), z = 1
    assert float(lower_limit(torch.tensor(1.0), 4)) == pytest.approx(0.8)
    assert float(lower_limit(torch.tensor(0.0), 4)) == 0.0


def test_the_errors_are_no_more_than_a_cut_with_all_known_ones_names() -> None:
    scores = torch.arange(1000, dtype=torch.float64)
    known = (scores >= 900) & (scores % 5 == 0)  # 80 others stand above the last of 20 known ones
    # Wilson's lower limit of 20 of 20 is 20 / 21
    assert 0 < most_errors(scores, known) <= (80 + 80**0.5) * 21 / 20 + 1e-6
    assert most_errors(scores, scores % 50 == 0) > 900  # known ones that are anywhere tell nothing


def test_whether_known_ones_stand_out() -> None:
    scores = torch.arange(100, dtype=torch.float64)
    assert stand_out(scores, scores >= 94)
    assert not stand_out(scores, scores % 20 == 0)


def test_one_known_example_that_happens_to_stand_on_top_makes_no_list() -> None:
    others = torch.linspace(0, 0.9, 1000)
    mine = torch.tensor([0.99, 0.85, 0.84, 0.83, 0.82, 0.81, 0.5, 0.4, 0.3])
    known = torch.arange(1009) >= 1000
    cut = known_cut(torch.cat([others, mine]), known)
    assert cut.recall >= 2 / 9
    assert 50 <= cut.count <= 200
    alone = known_cut(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([False, False, True]))
    assert (alone.count, alone.recall) == (0, 1.0)
