"""ToW, ToW-MIA, retention ratios, AUS and NoMUS."""

from __future__ import annotations

import math

import pytest
from memory import Constant, class_problem, evaluated, random_problem

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import set_accuracies
from expunge.metrics.base import UNDEFINED, Compares, measure
from expunge.metrics.composites import (
    AUS,
    NoMUS,
    Retention,
    ToW,
    ToWMIA,
    adaptive_unlearning_score,
    indiscernibility,
    retention,
    tug_of_war,
)
from expunge.metrics.fitted_attacks import LogisticAttack, SVCEfficacy


def test_tug_of_war_by_hand() -> None:
    assert tug_of_war([0.5, 0.9, 0.8], [0.1, 1.0, 0.85]) == pytest.approx(0.6 * 0.9 * 0.95)
    assert tug_of_war([1.0, 1.0, 1.0], [0.0, 1.0, 1.0]) == 0.0
    for given in (([0.5], [0.5, 0.5]), ([95.0], [90.0]), ([math.nan], [0.5])):
        with pytest.raises(InvalidInput, match=r"as many fractions in \[0, 1\]"):
            tug_of_war(*given)


def test_tug_of_war_of_models() -> None:
    given = evaluated(random_problem())
    mine, aim = set_accuracies(given), set_accuracies(given.retrained)
    assert mine.forget == 1.0
    forget, retain, test = (1 - abs(one - other) for one, other in zip(mine, aim, strict=True))
    assert ToW()(given) == pytest.approx(forget * retain * test)
    attack = SVCEfficacy()
    attacked = 1 - abs(attack(given) - attack(given.retrained))
    assert ToWMIA()(given) == pytest.approx(attacked * retain * test)
    retrained = evaluated(random_problem(), given.retrained.model)
    assert ToW()(retrained) == ToWMIA()(retrained) == 1.0
    assert ToW()(evaluated(class_problem())) == 0.0


def test_retention_by_hand() -> None:
    assert retention(0.45, 0.9) == 0.5
    with pytest.raises(InvalidInput, match="the retrained model has accuracy 0"):
        retention(0.5, 0.0)


def test_retention_of_models() -> None:
    given = evaluated(random_problem(), Constant(1.0, 0.0, 0.0, 0.0))
    mine, aim = set_accuracies(given), set_accuracies(given.retrained)
    found = {name: entry.value for name, entry in Retention().values(given).items()}
    assert found == pytest.approx(
        {
            "retention": mine.retain / aim.retain,
            "retention_forget": mine.forget / aim.forget,
            "retention_test": mine.test / aim.test,
        }
    )
    assert Retention()(given) == found["retention"] == pytest.approx(0.25)


def test_a_forgotten_class_has_no_forget_retention() -> None:
    given = evaluated(class_problem())
    found = {entry.name: entry for entry in measure(Retention(), given)}
    assert list(found) == ["retention", "retention_forget", "retention_test"]
    assert found["retention_test"].value is not None
    assert found["retention_forget"].value is None
    assert "accuracy 0" in found["retention_forget"].because
    with pytest.raises(UNDEFINED, match="accuracy 0"):
        Retention().on(given, "forget")


def test_aus_by_hand() -> None:
    assert adaptive_unlearning_score(0.9, 0.8, 0.5, class_removed=True) == pytest.approx(0.9 / 1.5)
    assert adaptive_unlearning_score(0.9, 0.8, 0.5, class_removed=False) == pytest.approx(0.9 / 1.3)
    assert adaptive_unlearning_score(0.9, 0.8, 1.0, class_removed=False) == pytest.approx(0.9 / 1.2)
    assert adaptive_unlearning_score(0.9, 0.9, 0.0, class_removed=True) == 1.0


def test_aus_of_models() -> None:
    given = evaluated(class_problem())
    assert AUS()(given) == 0.5  # nothing lost, the class known in full
    gained = set_accuracies(given.retrained).test - set_accuracies(given).test
    assert AUS()(evaluated(class_problem(), given.retrained.model)) == pytest.approx(1 + gained)
    given = evaluated(random_problem())
    mine = set_accuracies(given)
    assert AUS()(given) == pytest.approx(1 / (1 + abs(mine.test - mine.forget)))


def test_indiscernibility_by_hand() -> None:
    found = [indiscernibility(value) for value in (0.5, 0.0, 1.0, 0.6)]
    assert found == pytest.approx([1.0, 0.0, 0.0, 0.8])
    with pytest.raises(InvalidInput, match=r"must lie in \[0, 1\], got 52"):
        indiscernibility(52)


def test_nomus_of_models() -> None:
    given = evaluated(random_problem())
    test, attack = set_accuracies(given).test, LogisticAttack()(given)
    assert NoMUS()(given) == pytest.approx(0.5 * test + 0.5 * (1 - 2 * abs(attack - 0.5)))
    assert NoMUS(utility_weight=1.0)(given) == test
    assert NoMUS(utility_weight=0.0)(given) == pytest.approx(1 - 2 * abs(attack - 0.5))
    assert NoMUS()(given.retrained) > NoMUS()(given)
    with pytest.raises(InvalidInput, match=r"utility_weight must lie in \[0, 1\], got 2"):
        NoMUS(utility_weight=2)


def test_what_they_need_and_which_way_they_point() -> None:
    assert [metric.better for metric in (ToW, ToWMIA, Retention, AUS, NoMUS)] == [
        "higher",
        "higher",
        "reference",
        "higher",
        "higher",
    ]
    assert [metric.compares for metric in (ToW, ToWMIA, Retention, AUS, NoMUS)] == [
        *[Compares.RETRAINED] * 3,
        Compares.ORIGINAL,
        Compares.NOTHING,
    ]
    broken = evaluated(random_problem(), Constant(0.0, math.nan, 0.0, 0.0))
    for metric in (ToWMIA(), NoMUS()):
        with pytest.raises(UNDEFINED, match="NaN or inf"):
            metric(broken)
