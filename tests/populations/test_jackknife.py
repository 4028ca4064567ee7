from __future__ import annotations

import pytest
import torch
from scipy.stats import t
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.populations.comparison import jackknife

VALUES = torch.tensor([0.3, 1.2, -0.4, 2.2, 0.9, 1.1, -1.5, 0.2], dtype=torch.float64)


def mean(kept: Tensor) -> float:
    return float(VALUES[kept].mean())


def test_of_a_mean_is_the_t_interval() -> None:
    ends = jackknife(mean, 8)
    assert ends is not None
    half = float(t.ppf(0.975, 7) * VALUES.std() / 8**0.5)
    assert ends == pytest.approx((float(VALUES.mean()) - half, float(VALUES.mean()) + half))


def test_groups_take_every_gth_model() -> None:
    left: list[list[int]] = []

    def record(kept: Tensor) -> float:
        left.append(sorted(set(range(10)) - set(kept.tolist())))
        return 0.0

    assert jackknife(record, 10) == (0.0, 0.0)
    assert left == [[], [0, 8], [1, 9], *([group] for group in range(2, 8))]


def test_too_few_models_have_no_interval() -> None:
    def strict(kept: Tensor) -> float:
        if len(kept) < 8:
            raise InvalidInput("too few")
        return 1.0

    assert jackknife(strict, 8) is None
