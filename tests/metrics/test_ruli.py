from __future__ import annotations

import pytest
import torch

from expunge.errors import InvalidInput
from expunge.metrics.ruli import efficacy_game, memorisation, privacy_game, vulnerable
from expunge.metrics.ulira import leave_one_out
from expunge.seeding import generator

SOURCE = generator(0, "ruli")
INSIDE = torch.rand(30, 6, generator=SOURCE) < 0.5
SCORES = torch.randn(30, 6, generator=SOURCE, dtype=torch.float64)


def test_memorisation_equals_a_slow_loop() -> None:
    p = SCORES.sigmoid()
    found = memorisation(p, INSIDE).tolist()
    for example in range(6):
        with_it = [float(p[m, example]) for m in range(30) if INSIDE[m, example]]
        without = [float(p[m, example]) for m in range(30) if not INSIDE[m, example]]
        assert found[example] == pytest.approx(sum(with_it) / len(with_it) - sum(without) / len(without))


def test_the_most_memorised_are_vulnerable() -> None:
    memorised = torch.tensor([0.1, 0.9, 0.0, 0.5, 0.9, -0.2, 0.3, 0.4, 0.2, 0.6])
    assert vulnerable(memorised, 0.3).tolist() == [1, 4, 9]
    assert vulnerable(memorised, 0.01).tolist() == [1]
    assert len(vulnerable(memorised, 1.0)) == 10


def test_the_privacy_game_is_the_attack_on_the_targets() -> None:
    targets = torch.tensor([1, 4])
    game = privacy_game(SCORES, INSIDE, targets)
    assert torch.equal(game.ratios, leave_one_out(SCORES, INSIDE).ratios[:, targets])


def test_the_efficacy_game_tells_unlearned_from_retrained() -> None:
    retrained = torch.randn(25, 6, generator=SOURCE, dtype=torch.float64)
    unlearned = SCORES.clone()
    unlearned[:, 3] += 30
    targets = torch.tensor([0, 3])
    game = efficacy_game(unlearned, retrained, targets)
    assert game.inside.sum(0).tolist() == [30, 30]
    assert float(game.auc[1]) == 1.0
    assert float(game.auc[0]) < 0.8
    other = efficacy_game(retrained, unlearned, targets)
    torch.testing.assert_close(other.ratios, -game.ratios.roll(25, 0))


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="every example needs a model that was trained on it"):
        memorisation(SCORES, torch.ones(30, 6, dtype=torch.bool))
    with pytest.raises(InvalidInput, match=r"bools of the same shape are expected, got \(30, 6\)"):
        memorisation(SCORES, INSIDE[:, :2])
    with pytest.raises(InvalidInput, match=r"a share in \(0, 1\] are expected"):
        vulnerable(torch.ones(4), 0.0)
    with pytest.raises(InvalidInput, match="at least 3 models on each side"):
        efficacy_game(SCORES, SCORES[:2], torch.tensor([0]))
    with pytest.raises(InvalidInput, match="scored on the same examples"):
        efficacy_game(SCORES, SCORES[:, :2], torch.tensor([0]))
