from __future__ import annotations

import math

import pytest
import torch

from expunge.metrics.membership import entropy, share_called_member


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [200.0, 0.0]])
    by_hand = [math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), 0.0]
    assert entropy(logits).tolist() == pytest.approx(by_hand)


def test_separated_features_are_told_apart() -> None:
    members, others = torch.linspace(0, 0.4, 50), torch.linspace(0.6, 1, 400)
    # one scalar, balanced weights: the boundary lies between the groups although one is eight times larger
    assert share_called_member(members, others, torch.tensor([0.0, 0.1, 0.2])) == 1.0
    assert share_called_member(members, others, torch.tensor([0.9, 0.95, 0.1, 1.0])) == 0.25
