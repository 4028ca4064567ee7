from __future__ import annotations

import copy

import pytest
import torch
from trained_models import CPU, Trained

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import PerClassAccuracy
from expunge.metrics.base import Evaluated, NotDefined
from expunge.metrics.class_damage import ClassDamage, class_drops


def test_drops_by_hand() -> None:
    drops = class_drops([0.9, 0.8, None, 0.5], [0.4, 0.9, 0.3, None])
    assert drops == pytest.approx({0: 0.5, 1: -0.1})


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="got 2 and 1"):
        class_drops([0.1, 0.2], [0.1])
    with pytest.raises(InvalidInput, match="no class has test images"):
        class_drops([None, 0.2], [0.1, None])


def test_of_models(forgotten_class: Trained) -> None:
    damaged = copy.deepcopy(forgotten_class.original)
    with torch.no_grad():
        damaged.head.bias[2] -= 1000  # class 2 is never answered
        damaged.head.bias[1] -= 1000  # nor the forgotten class
    evaluated = forgotten_class.of(damaged)
    metric = ClassDamage()
    before = PerClassAccuracy().classes(evaluated.original)
    after = PerClassAccuracy().classes(evaluated)
    values = {name: value.value for name, value in metric.values(evaluated).items()}
    assert values["class_damage"] == before[2] == metric(evaluated) > 0.9
    assert "class_damage_1" not in values
    for label in (0, 2, 3):
        assert values[f"class_damage_{label}"] == before[label] - after[label]
    reference = PerClassAccuracy().classes(evaluated.retrained)
    assert values["class_damage_to_reference"] == reference[2]


def test_no_reference_no_value(forgotten_class: Trained) -> None:
    original = forgotten_class.alone(forgotten_class.original)
    evaluated = Evaluated(forgotten_class.retrained, forgotten_class.problem, CPU, {"original": original})
    assert "class_damage_to_reference" not in ClassDamage().values(evaluated)
    with pytest.raises(NotDefined, match="original model, which is not given"):
        ClassDamage()(original)


def test_the_oracle_is_the_second_choice(forgotten_class: Trained) -> None:
    original = forgotten_class.alone(forgotten_class.original)
    others = {"original": original, "oracle": forgotten_class.alone(forgotten_class.retrained)}
    evaluated = Evaluated(forgotten_class.original, forgotten_class.problem, CPU, others)
    values = ClassDamage().values(evaluated)
    assert values["class_damage"].value == 0
    assert "class_damage_to_reference" in values
