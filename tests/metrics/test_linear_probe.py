from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from trained_models import CPU, Trained

from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.logit_mask import LogitMask
from expunge.metrics.base import NotDefined
from expunge.metrics.probes import LinearProbe, class_mean_probe, linear_probe_accuracy, probe_layers


def test_separable_features_are_read_and_noise_is_not() -> None:
    labels = torch.arange(300) % 3
    apart = torch.eye(3)[labels] + 0.01 * torch.randn(300, 3)
    assert linear_probe_accuracy(apart[:150], labels[:150], apart[150:], labels[150:]) == 1
    noise = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0))
    many = torch.arange(3000) % 3
    chance = linear_probe_accuracy(noise[:1500], many[:1500], noise[1500:], many[1500:])
    assert chance == pytest.approx(1 / 3, abs=0.05)


def test_what_no_line_separates_is_not_read() -> None:
    corners = torch.tensor([[0.0, 0], [1, 1], [0, 1], [1, 0]]).repeat(50, 1)
    labels = torch.tensor([0, 0, 1, 1]).repeat(50)
    assert linear_probe_accuracy(corners, labels, corners, labels) <= 0.75


def test_refusals() -> None:
    z, labels = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(InvalidInput, match="got 1 classes and 4 examples"):
        linear_probe_accuracy(z, torch.zeros(4, dtype=torch.int64), z, labels)
    with pytest.raises(InvalidInput, match="got 2 classes and 0 examples"):
        linear_probe_accuracy(z, labels, z[:0], labels[:0])
    with pytest.raises(InvalidInput, match="NaN or inf"):
        linear_probe_accuracy(z * math.nan, labels, z, labels)


def test_layers_of_a_model(forgotten_class: Trained, margin: Callable[..., None]) -> None:
    split, sets = forgotten_class.problem.split, forgotten_class.problem.truth.sets
    model = forgotten_class.original
    found = probe_layers(model, split.train, sets["test"], CPU, layers=["hidden", "activation"])
    assert list(found) == ["hidden", "activation"]
    margin("accuracy", min(found["activation"]), above=0.9)
    # what enters the head of the network is what the activation puts out
    of_head = class_mean_probe(model, split.train, sets["test"], CPU)
    assert found["activation"][1] == of_head
    assert class_mean_probe(model, split.train, sets["test"], CPU, layer="activation") == of_head


def test_a_mask_of_the_logit_hides_nothing_and_erased_features_do(forgotten_class: Trained) -> None:
    problem, original = forgotten_class.problem, forgotten_class.original
    metric = LinearProbe(layers=("activation",))
    masked = LogitMask()(original, Request(problem.split, seed=0, numerics=CPU)).model
    erased = copy.deepcopy(original)
    with torch.no_grad():
        erased.hidden.weight.zero_()
    values = {
        name: metric.values(forgotten_class.alone(model))
        for name, model in (("before", original), ("masked", masked), ("erased", erased))
    }
    assert values["before"] == values["masked"]
    assert list(values["before"]) == ["linear_probe", "linear_probe_activation", "nearest_mean_activation"]
    assert values["before"]["linear_probe"].value > 0.9
    assert values["erased"]["linear_probe"].value in (0, 1)  # one class for every image


def test_not_defined_without_a_forgotten_class(forgotten_samples: Trained) -> None:
    with pytest.raises(NotDefined, match="'forget_test'"):
        LinearProbe()(forgotten_samples.alone(forgotten_samples.original))
