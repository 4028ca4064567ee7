from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.weight_distance import WeightDistance, weight_distances


def network(width: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def test_by_hand() -> None:
    first = network()
    second = copy.deepcopy(first)
    with torch.no_grad():
        second[0].weight[0, 0] += 3
        second[0].bias[1] -= 4
        second[2].weight += 0.5
        second[1].running_mean += 100  # a buffer
    assert weight_distances(first, second) == pytest.approx({"0": 5, "1": 0, "2": math.sqrt(4 * 0.25)})


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match=r"they differ in 0\.bias, 0\.weight, 1\.bias"):
        weight_distances(network(2), network(3))
    with pytest.raises(InvalidInput, match="no parameters"):
        weight_distances(nn.ReLU(), nn.ReLU())


def test_of_models(forgotten_class: Trained, diverged: nn.Module) -> None:
    metric = WeightDistance()
    values = {
        name: value.value
        for name, value in metric.values(forgotten_class.of(forgotten_class.original)).items()
    }
    assert list(values) == ["weight_distance", "weight_distance_hidden", "weight_distance_head"]
    flat = [
        torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])
        for model in (forgotten_class.original, forgotten_class.retrained)
    ]
    assert values["weight_distance"] == pytest.approx(float((flat[0] - flat[1]).norm()))
    assert metric(forgotten_class.of(forgotten_class.retrained)) == 0
    with pytest.raises(UNDEFINED, match="layer 'hidden' hold NaN"):
        metric(forgotten_class.of(diverged))
