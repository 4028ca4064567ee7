from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from expunge.repair.measure import Attack, Measured, Share
from expunge.repair.verdict import damages, judge

CLASSES = [f"c{label}" for label in range(10)]


def measured(**given: Any) -> Measured:
    values: dict[str, Any] = {
        "retained": Share(990, 1000),
        "forget_as_stored": Share(100, 100),
        "validation": Share(950, 1000),
        "healed_known": None,
        "healed_unknown": None,
        "per_class": (Share(95, 100),) * 10,
        "attacks": {},
        "predictions": torch.zeros(0),
    }
    return Measured(**{**values, **given})


BEFORE = measured()
GONE = Share(2, 100)


@pytest.mark.parametrize(
    ("after", "grade", "reason"),
    [
        ({"forget_as_stored": GONE}, "it worked", r"2 of 100 \(2%\) listed rows keep their stored label"),
        ({"forget_as_stored": Share(40, 100)}, "it worked in part", "40 of 100"),
        ({"forget_as_stored": Share(60, 100)}, "it did not work: retrain", "60 of 100"),
        ({"forget_as_stored": GONE, "validation": Share(920, 1000)}, "it worked in part", "95.0% to 92.0%"),
        ({"forget_as_stored": GONE, "validation": Share(890, 1000)}, "it did not work: retrain", "to 89.0%"),
        ({"forget_as_stored": GONE, "healed_known": Share(4, 10)}, "it worked in part", r"4 of 10 \(40%\)"),
        ({"forget_as_stored": GONE, "healed_unknown": Share(4, 10)}, "it worked in part", "outside the list"),
        (
            {"forget_as_stored": GONE, "per_class": (Share(75, 100), *[Share(95, 100)] * 9)},
            "it worked in part",
            r"class c0 lost 20 points \(95% to 75%\)",
        ),
    ],
)
def test_healing(after: dict[str, Any], grade: str, reason: str) -> None:
    verdict = judge(BEFORE, measured(**after), "heal", CLASSES)
    assert verdict.grade == grade
    assert re.search(reason, "\n".join(verdict.reasons))


def test_nothing_to_forget() -> None:
    verdict = judge(measured(forget_as_stored=GONE), measured(forget_as_stored=GONE), "heal", CLASSES)
    assert verdict.grade == "it worked in part"
    assert "nothing to take out" in verdict.reasons[0]


def test_a_small_class_may_waver() -> None:
    before = measured(per_class=(Share(5, 5),) * 10)
    after = measured(forget_as_stored=GONE, per_class=(Share(4, 5), *[Share(5, 5)] * 9))
    assert judge(before, after, "heal", CLASSES).grade == "it worked"
    worst = damages(before, after, CLASSES)[0]
    assert (worst.name, round(worst.loss, 6)) == ("c0", 0.2)
    assert worst.tolerated(10) > 0.2


def test_a_reference_says_how_far_it_should_go() -> None:
    after = measured(forget_as_stored=Share(12, 100), validation=Share(900, 1000))
    assert judge(BEFORE, after, "heal", CLASSES).grade == "it worked in part"
    reference = measured(forget_as_stored=Share(10, 100), validation=Share(895, 1000))
    assert judge(BEFORE, after, "heal", CLASSES, reference=reference).grade == "it worked"


def test_without_validation_a_loss_by_stored_labels_is_a_doubt() -> None:
    before = measured(validation=None)
    some = measured(validation=None, forget_as_stored=GONE, retained=Share(930, 1000))
    verdict = judge(before, some, "heal", CLASSES)
    assert verdict.grade == "it worked in part"
    assert any("--validation would tell the two apart" in reason for reason in verdict.reasons)
    much = measured(validation=None, forget_as_stored=GONE, retained=Share(700, 1000))
    assert judge(before, much, "heal", CLASSES).grade == "it did not work: retrain"


@pytest.mark.parametrize(
    ("attack", "grade"),
    [
        (Attack(0.52, 0.45, 0.58), "it worked"),
        (Attack(0.80, 0.75, 0.85), "it did not work: retrain"),
        (Attack(0.62, 0.55, 0.70), "it worked"),  # too few rows to be sure
        (Attack(0.20, 0.15, 0.25), "it worked in part"),
    ],
)
def test_forgetting_samples_is_judged_beside_unseen_rows(attack: Attack, grade: str) -> None:
    after = measured(attacks={"loss": attack})
    assert judge(BEFORE, after, "forget", CLASSES).grade == grade


def test_forgetting_samples_without_validation_cannot_be_judged() -> None:
    after = measured(validation=None)
    verdict = judge(measured(validation=None), after, "forget", CLASSES)
    assert verdict.grade == "it worked in part"
    assert "give --validation" in verdict.reasons[0]


def test_a_forgotten_class_counts_neither_as_damage_nor_as_kept() -> None:
    after = measured(forget_as_stored=Share(0, 100), per_class=(Share(0, 100), *[Share(95, 100)] * 9))
    assert judge(BEFORE, after, "forget", CLASSES, (0,)).grade == "it worked"
    hidden = judge(BEFORE, after, "forget", CLASSES, (0,), hidden=True)
    assert hidden.grade == "it worked in part"
    assert "still inside" in hidden.reasons[0]
