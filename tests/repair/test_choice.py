from __future__ import annotations

from typing import Any

import pytest

from expunge.errors import InvalidInput
from expunge.methods.base import Needs
from expunge.registry import METHODS
from expunge.repair.choice import Situation, choose, starting_settings

WITHOUT = ("rem", "rem_without_redirection", "delete", "npo")


@pytest.mark.parametrize(
    ("case", "method", "runner_up"),
    [
        ({}, "rem", "rem_without_redirection"),
        ({"discovery": 1.0}, "rem", "rem_without_redirection"),
        ({"attachable": False}, "rem_without_redirection", "delete"),
        ({"retain": False}, "delete", "npo"),
        ({"purpose": "forget"}, "natmu", "amnesiac"),
        ({"purpose": "forget", "floating": False, "images": False}, "amnesiac", "npo"),
        ({"purpose": "forget", "images": False}, "amnesiac", "npo"),
        (
            {"purpose": "forget", "retain": False, "whole_classes": True, "codes": True},
            "mnemonic_code",
            "logit_mask",
        ),
        ({"purpose": "forget", "retain": False, "whole_classes": True}, "logit_mask", "delete"),
        ({"purpose": "forget", "retain": False, "codes": True}, "npo", "delete"),
    ],
)
def test_what_is_known_decides(case: dict[str, Any], method: str, runner_up: str) -> None:
    choice = choose(Situation(**case), WITHOUT)
    assert (choice.method, choice.runner_up) == (method, runner_up)
    assert choice.why
    assert method in METHODS.names()
    assert runner_up in METHODS.names()


def test_relearning_is_the_default_where_it_is_installed() -> None:
    known = (*WITHOUT, "relearn")
    assert choose(Situation(), known).method == "relearn"
    assert choose(Situation(), known).runner_up == "rem"
    assert choose(Situation(discovery=1.0), known).method == "rem"  # nothing is left to be found


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("purpose", ["heal", "forget"])
@pytest.mark.parametrize("whole_classes", [True, False])
@pytest.mark.parametrize("codes", [True, False])
def test_no_method_is_chosen_that_needs_what_is_not_there(
    retain: bool, purpose: Any, whole_classes: bool, codes: bool
) -> None:
    there = Needs.FORGET
    for need, has in ((Needs.RETAIN, retain), (Needs.CLASSES, whole_classes), (Needs.CODES, codes)):
        there |= need if has else Needs.NOTHING
    case = Situation(purpose=purpose, retain=retain, whole_classes=whole_classes, codes=codes)
    choice = choose(case, METHODS.names())
    for name in (choice.method, choice.runner_up):
        assert METHODS.get(name).needs & ~there == Needs.NOTHING


def test_bad_situations() -> None:
    with pytest.raises(InvalidInput, match=r"'heal' or 'forget', got 'mend'"):
        Situation(purpose="mend")  # type: ignore[arg-type]
    for share in (0.0, 1.1):
        with pytest.raises(InvalidInput, match=r"lies in \(0, 1\]"):
            Situation(discovery=share)


def test_settings_follow_the_size_of_the_data() -> None:
    rem = METHODS.get("rem")
    small = starting_settings(rem, 1437, "heal")
    assert small["batch_size"] == 128  # 1437 / 12 = 120
    assert small["erase_mean"] is True
    assert starting_settings(rem, 1437, "forget").keys() == {"batch_size", "lr", "open_share"}
    assert starting_settings(rem, 50_000, "heal") == {"score_floor": 0.0, "erase_mean": True}
    assert starting_settings(rem, 3, "heal")["batch_size"] == 8
    assert starting_settings(METHODS.get("natmu"), 1437, "forget") == {}  # its own 128 is not made larger
    assert starting_settings(METHODS.get("natmu"), 400, "forget") == {"batch_size": 32}
    assert starting_settings(METHODS.get("logit_mask"), 1437, "forget") == {}
    for count in (90, 50_000):  # its batch size is the first training's
        assert starting_settings(METHODS.get("relearn"), count, "heal") == {}
