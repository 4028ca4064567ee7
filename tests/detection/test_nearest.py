from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from expunge.detection import nearest as module
from expunge.detection.nearest import nearest


@pytest.mark.parametrize("at_once", [1, 2**26])
def test_as_a_slow_loop_says(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    among = torch.arange(30) % 3 > 0
    rows = torch.tensor([0, 4, 9])
    unit = F.normalize(features - features.mean(0), dim=1)
    for row, found in zip(rows.tolist(), nearest(features, rows, among, 3).tolist(), strict=True):
        others = [i for i in range(30) if among[i] and i != row]
        expected = sorted(others, key=lambda i: -float(unit[row] @ unit[i]))[:3]
        assert found == expected


def test_fewer_than_asked_for() -> None:
    features = torch.eye(3)
    found = nearest(features, torch.tensor([0]), torch.tensor([True, True, False]), 3)
    assert found.tolist() == [[1, -1, -1]]
