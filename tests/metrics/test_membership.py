from __future__ import annotations

import torch

from expunge.metrics.fitted_attacks import share_called_member


def test_separated_features_are_told_apart() -> None:
    members, others = torch.linspace(0, 0.4, 50), torch.linspace(0.6, 1, 400)
    # one scalar, balanced weights: the boundary lies between the groups although one is eight times larger
    assert share_called_member(members, others, torch.tensor([0.0, 0.1, 0.2])) == 1.0
    assert share_called_member(members, others, torch.tensor([0.9, 0.95, 0.1, 1.0])) == 0.25
