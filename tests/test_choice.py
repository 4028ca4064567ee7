from __future__ import annotations

from typing import Any

import pytest

from expunge.choice import Situation, choose, starting_settings
from expunge.errors import InvalidInput
from expunge.methods.base import Needs
from expunge.registry import METHODS
from expunge.training.recipe import Optimiser, Recipe


@pytest.mark.parametrize(
    ("case", "method", "runner_up"),
    [
        ({}, "relearn", "rem"),
        ({"discovery": 0.1, "recipe": True, "price": 0.2}, "relearn", "rem"),
        ({"discovery": 1.0}, "relearn", "rem"),
        ({"discovery": 1.0, "recipe": True, "price": 0.2}, "relearn", "retrain"),
        ({"recipe": True, "price": 1.1}, "retrain", "relearn"),
        ({"price": 1.1}, "relearn", "rem"),  # what was fine-tuned cannot be retrained from scratch
        ({"attachable": False}, "relearn", "rem_without_redirection"),
        ({"retain": False}, "delete", "npo"),
        ({"price": 0.2, "budget": 0.1}, "delete", "npo"),
        ({"recipe": True, "price": 1.1, "budget": 0.5}, "delete", "npo"),
        ({"forget": False, "recipe": True}, "retrain", "l1_sparse"),
        ({"forget": False, "recipe": True, "budget": 0.5}, "l1_sparse", ""),
        ({"purpose": "forget"}, "relearn", "natmu"),
        ({"purpose": "forget", "recipe": True, "price": 0.9}, "relearn", "natmu"),
        ({"purpose": "forget", "recipe": True, "price": 1.2}, "retrain", "natmu"),
        ({"purpose": "forget", "price": 1.2}, "relearn", "natmu"),
        ({"purpose": "forget", "recipe": True, "price": 1.2, "budget": 0.5}, "relearn", "natmu"),
        ({"purpose": "forget", "images": False}, "relearn", "amnesiac"),
        ({"purpose": "forget", "whole_classes": True}, "natmu", "amnesiac"),
        ({"purpose": "forget", "loosens": False}, "natmu", "amnesiac"),
        ({"purpose": "forget", "loosens": False, "floating": False, "images": False}, "amnesiac", "npo"),
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
    choice = choose(Situation(**case))
    assert (choice.method, choice.runner_up) == (method, runner_up)
    assert choice.why
    assert method in METHODS.names()
    assert runner_up in ("", *METHODS.names())


def test_figures_say_which_is_the_better_buy() -> None:
    complete = {"discovery": 1.0, "recipe": True}
    assert "relearning costs 20% of the first training" in choose(Situation(price=0.2, **complete)).why
    dear = choose(Situation(price=1.2, **complete)).why
    assert "relearning would cost 120% of it and heal no more" in dear
    assert "expunge find" in choose(Situation(price=1.2, recipe=True, discovery=0.5)).why
    assert "would cost less" in choose(Situation(price=1.2)).why


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("purpose", ["heal", "forget"])
@pytest.mark.parametrize("whole_classes", [True, False])
@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize("price", [None, 0.2, 1.5])
def test_no_method_is_chosen_that_needs_what_is_not_there(
    retain: bool, purpose: Any, whole_classes: bool, codes: bool, recipe: bool, price: float | None
) -> None:
    there = Needs.FORGET
    for need, has in (
        (Needs.RETAIN, retain), (Needs.CLASSES, whole_classes), (Needs.CODES, codes), (Needs.RECIPE, recipe),
    ):  # fmt: skip
        there |= need if has else Needs.NOTHING
    case = Situation(
        purpose=purpose, retain=retain, whole_classes=whole_classes, codes=codes, recipe=recipe, price=price
    )
    choice = choose(case)
    for name in (choice.method, choice.runner_up):
        assert METHODS.get(name).needs & ~there == Needs.NOTHING


def test_nothing_to_work_with() -> None:
    with pytest.raises(InvalidInput, match="neither the listed examples nor the remaining data"):
        choose(Situation(retain=False, forget=False))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"purpose": "mend"}, "'heal' or 'forget', got 'mend'"),
        ({"discovery": 10.0}, r"in \(0, 1\], got 10; divide a percentage by 100"),
        ({"discovery": 0.0}, r"in \(0, 1\], got 0"),
        ({"regularity": 1.5}, r"regularity must lie in \[0, 1\], got 1.5"),
        ({"budget": 0.0}, "must be positive, got 0; 0.25 is a quarter"),
        ({"budget": float("inf")}, "must be positive, got inf"),
    ],
)
def test_bad_situations(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Situation(**given)


def test_good_rows_are_left_out_not_unlearned() -> None:
    assert starting_settings(METHODS.get("relearn"), 30_000, "heal", None) == {}
    assert starting_settings(METHODS.get("relearn"), 30_000, "forget", None) == {
        "early_learning": 0.0, "not_label": 0.0, "own_label": 0.0, "least_learned": 0.0, "neighbours": False,
    }  # fmt: skip


def test_settings_follow_the_size_of_the_data() -> None:
    rem = METHODS.get("rem")
    small = starting_settings(rem, 1437, "heal", None)
    assert small["batch_size"] == 128  # 1437 / 12 = 120
    assert small["erase_mean"] is True
    assert starting_settings(rem, 1437, "forget", None).keys() == {"batch_size", "lr", "open_share"}
    assert starting_settings(rem, 50_000, "heal", None) == {"score_floor": 0.0, "erase_mean": True}
    assert starting_settings(rem, 3, "heal", None)["batch_size"] == 8
    assert (
        starting_settings(METHODS.get("natmu"), 1437, "forget", None) == {}
    )  # its own 128 is not made larger
    assert starting_settings(METHODS.get("natmu"), 400, "forget", None) == {"batch_size": 32}
    assert starting_settings(METHODS.get("logit_mask"), 1437, "forget", None) == {}
    assert starting_settings(METHODS.get("relearn"), 90, "heal", None) == {}


@pytest.mark.parametrize("method", ["natmu", "amnesiac", "delete", "npo"])
def test_settings_follow_the_first_training(method: str) -> None:
    recipe = Recipe(optimiser=Optimiser(name="adam", lr=0.0123))
    found = starting_settings(METHODS.get(method), 50_000, "forget", recipe)
    assert found == {"optimiser": "adam", "lr": 0.0123}
    assert starting_settings(METHODS.get("relearn"), 50_000, "heal", recipe) == {}  # it follows by itself
    assert "lr" not in starting_settings(METHODS.get("rem"), 50_000, "heal", recipe)
