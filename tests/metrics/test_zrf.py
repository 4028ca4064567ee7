from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from trained_models import Trained

from expunge.metrics.base import UNDEFINED
from expunge.metrics.compared_predictions import ZRF, js_divergence, zrf_score
from expunge.training.initialisation import fresh_copy


def test_one_minus_js() -> None:
    first, second = torch.randn(5, 10), torch.randn(5, 10)
    assert zrf_score(first, second) == pytest.approx(1 - js_divergence(first, second))
    apart = torch.zeros(2, 100)
    apart[:, 0] = 900
    assert zrf_score(apart, apart.roll(1, 1)) == pytest.approx(1 - math.log(2))


def test_the_published_code_scores_near_one_for_many_classes() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (4 * torch.randn(5000, 100, generator=draw) for _ in range(2))
    assert zrf_score(first, second) == pytest.approx(0.354, abs=0.005)
    assert zrf_score(first, second, legacy=True) == pytest.approx(0.960, abs=0.005)


def test_the_untrained_network_follows_the_generator_alone(forgotten_class: Trained) -> None:
    before = copy.deepcopy(forgotten_class.original.state_dict())
    made = [
        fresh_copy(model, torch.Generator().manual_seed(seed)).state_dict()
        for model, seed in (
            (forgotten_class.original, 3),
            (forgotten_class.retrained, 3),
            (forgotten_class.original, 4),
        )
    ]
    for name, tensor in made[0].items():
        assert torch.equal(tensor, made[1][name])
        assert not torch.equal(tensor, made[2][name])
        assert not torch.equal(tensor, before[name])
        assert torch.equal(forgotten_class.original.state_dict()[name], before[name])


def test_of_models(forgotten_class: Trained) -> None:
    metric = ZRF()
    original, retrained = (forgotten_class.alone(model) for model in forgotten_class[1:])
    assert metric(original) == metric(forgotten_class.alone(forgotten_class.original))
    assert metric(original) != ZRF(seed=1)(original)
    assert 1 - math.log(2) <= metric(original) <= 1
    assert metric(original) != ZRF(legacy=True)(original)
    untrained = fresh_copy(forgotten_class.original, torch.Generator().manual_seed(0))
    assert metric(forgotten_class.alone(untrained)) == pytest.approx(1)
    assert 0 < metric(retrained) < 1


def test_a_model_that_cannot_be_drawn_anew(forgotten_class: Trained) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight

    with pytest.raises(UNDEFINED, match="has no reset_parameters"):
        ZRF()(forgotten_class.alone(Bare()))
