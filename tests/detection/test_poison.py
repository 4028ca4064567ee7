from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from planted_digits import NUMERICS, planted
from torch import Tensor

from expunge.detection.agreement import agreement
from expunge.detection.poison import activation_clustering, spectral_signatures
from expunge.errors import InvalidInput
from expunge.seeding import generator
from expunge.training.cost import Meter
from expunge.training.features import features
from expunge.training.recipe import Optimiser, Recipe


def classes_with_poison(
    poisoned: int = 12, per_class: int = 60, classes: int = 6, dim: int = 20
) -> tuple[Tensor, Tensor]:
    """Normal features; the last ``poisoned`` rows of class 2 are shifted along one direction."""
    draw = torch.Generator().manual_seed(3)
    labels = torch.arange(classes).repeat_interleave(per_class)
    found = torch.randn(len(labels), dim, generator=draw, dtype=torch.float64) + 4 * labels[:, None]
    rows = (labels == 2).nonzero().flatten()[-poisoned:] if poisoned else labels[:0]
    found[rows, 5] += 15
    return found, labels


@pytest.mark.parametrize("dim", [3, 20, 200])
def test_spectral_scores_equal_the_formula(dim: int) -> None:
    inputs, labels = classes_with_poison(dim=max(dim, 6))
    found = spectral_signatures(inputs, labels, 6, share=0.1)
    for label in range(6):
        members = (labels == label).numpy()
        centred = inputs.numpy()[members] - inputs.numpy()[members].mean(0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        expected = [float(np.dot(row, direction)) ** 2 for row in centred]
        np.testing.assert_allclose(found.scores.numpy()[members], expected, rtol=1e-8, atol=1e-10)
        largest = sorted(range(60), key=lambda i: -expected[i])[:9]
        assert sorted(np.flatnonzero(found.flagged.numpy()[members])) == sorted(largest)
    assert found.per_class == (9,) * 6


def test_spectral_signatures_rank_the_poison_first() -> None:
    inputs, labels = classes_with_poison()
    found = spectral_signatures(inputs, labels, 6, share=12 / 60)
    poison = torch.zeros(len(labels), dtype=torch.bool)
    poison[(labels == 2).nonzero().flatten()[-12:]] = True
    assert bool(found.flagged[poison].all())
    assert found.evidence["first_direction"][2] == max(found.evidence["first_direction"])
    assert "look through what it lists" in found.notes[0]


def test_spectral_signatures_of_tiny_and_constant_classes() -> None:
    inputs = torch.cat([torch.zeros(1, 4), torch.ones(5, 4)])
    found = spectral_signatures(inputs, torch.tensor([0, 1, 1, 1, 1, 1]), 3)
    assert found.scores.tolist() == [0.0] * 6
    assert not bool(found.flagged.any())
    assert all(math.isnan(value) for value in found.evidence["first_direction"])


def test_activation_clustering_finds_the_class_and_the_rows() -> None:
    inputs, labels = classes_with_poison()
    found = activation_clustering(inputs, labels, 6)
    assert found.positions.tolist() == (labels == 2).nonzero().flatten()[-12:].tolist()
    assert found.per_class == (0, 0, 12, 0, 0, 0)
    assert found.evidence["smaller_part"][2] == pytest.approx(0.2)
    assert found.evidence["anomaly"][2] > 3
    assert bool((found.scores[found.flagged] > 0).all())
    assert bool((found.scores[~found.flagged] == 0).all())


def test_the_silhouette_equals_a_slow_loop() -> None:
    inputs, labels = classes_with_poison(dim=8)
    found = activation_clustering(inputs, labels, 6, components=8)
    rows = inputs[labels == 2]
    parts = found.flagged[labels == 2]
    widths = []
    for i in range(len(rows)):
        distance = (rows - rows[i]).norm(dim=1)
        own = parts == parts[i]
        a = float(distance[own].sum()) / (int(own.sum()) - 1)
        b = float(distance[~own].mean())
        widths.append((b - a) / max(a, b))
    assert found.evidence["silhouette"][2] == pytest.approx(sum(widths) / len(widths), rel=1e-9)


def test_the_anomaly_index_equals_its_formula() -> None:
    inputs, labels = classes_with_poison()
    found = activation_clustering(inputs, labels, 6).evidence
    widths = np.array(found["silhouette"])
    spread = 1.4826 * np.median(np.abs(widths - np.median(widths)))
    np.testing.assert_allclose(found["anomaly"], (widths - np.median(widths)) / spread)


def test_clean_classes_are_left_alone() -> None:
    inputs, labels = classes_with_poison(poisoned=0)
    assert not bool(activation_clustering(inputs, labels, 6).flagged.any())


@pytest.mark.parametrize("setting", [{"silhouette": 0.99}, {"size": 0.1}, {"anomaly": 1e9}])
def test_each_condition_decides(setting: dict[str, float]) -> None:
    inputs, labels = classes_with_poison()
    assert not bool(activation_clustering(inputs, labels, 6, **setting).flagged.any())  # type: ignore[arg-type]


def test_few_classes_are_judged_without_the_anomaly_index() -> None:
    inputs, labels = classes_with_poison(classes=3)
    found = activation_clustering(inputs, labels, 3)
    assert found.per_class[2] == 12
    assert all(math.isnan(value) for value in found.evidence["anomaly"])


def test_small_and_constant_classes_have_no_parts() -> None:
    inputs = torch.cat([torch.randn(9, 4), torch.ones(20, 4)])
    labels = torch.tensor([0] * 9 + [1] * 20)
    found = activation_clustering(inputs, labels, 3)
    assert not bool(found.flagged.any())
    assert all(math.isnan(value) for value in found.evidence["silhouette"])


def test_bad_settings_and_features() -> None:
    inputs, labels = classes_with_poison()
    for share in (0.0, 0.5):
        with pytest.raises(InvalidInput, match=r"must lie in \(0, 0.5\), got"):
            spectral_signatures(inputs, labels, 6, share=share)
    for setting in ({"components": 0}, {"silhouette": 2.0}, {"size": 0.6}, {"anomaly": math.nan}):
        with pytest.raises(InvalidInput, match="activation clustering needs components of at least 1"):
            activation_clustering(inputs, labels, 6, **setting)  # type: ignore[arg-type]
    broken = inputs.clone()
    broken[1, 1] = math.inf
    for detector in (spectral_signatures, activation_clustering):
        with pytest.raises(InvalidInput, match="hold NaN or inf"):
            detector(broken, labels, 6)


@pytest.mark.trains
def test_a_planted_patch_is_found_on_digits(margin: Callable[..., None]) -> None:
    digits = planted(1.0, 40)
    recipe = Recipe(
        model="mlp", model_settings={"hidden": 64, "activation": "relu"}, epochs=40, batch_size=64,
        augment=False, optimiser=Optimiser(name="adamw", lr=3e-3),
    )  # fmt: skip
    model = recipe.build(digits.shape, 10, generator(0, "initialisation"))
    with Meter() as meter:
        recipe.train(model, digits.examples, 0, NUMERICS, meter)
    labels, found = digits.examples.labels, features(model, digits.examples, NUMERICS)
    spectral = agreement(spectral_signatures(found, labels, 10, share=0.2), digits.bad)
    activation = agreement(activation_clustering(found, labels, 10), digits.bad)
    # Three tenths of every class are listed, and the poison among them.
    assert spectral.recall == 1.0
    assert spectral.precision is not None
    margin("spectral: precision", spectral.precision, below=0.2)
    assert activation.recall is not None
    assert activation.precision is not None
    margin("activation: recall", activation.recall, above=0.9)
    margin("activation: precision", activation.precision, above=0.9)
