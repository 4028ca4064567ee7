from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from memory import Constant, class_problem, evaluated, random_problem

from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.fitted_attacks import LogisticAttack, logistic_attack, matched_by_class
from expunge.tasks.base import Problem


def test_separated_and_equal_features() -> None:
    low, high = torch.linspace(0, 1, 60), torch.linspace(4, 5, 60)
    assert logistic_attack(low, high) == 1.0
    assert logistic_attack(high, low) == 1.0
    normal = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert logistic_attack(normal[:2000], normal[2000:]) == pytest.approx(0.5, abs=0.03)


def test_a_shift_is_found_at_its_closed_form() -> None:
    normal = torch.randn(8000, generator=torch.Generator().manual_seed(1))
    # the best threshold between N(0, 1) and N(2, 1) is 1, right with probability Phi(1)
    phi = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert logistic_attack(normal[:4000], normal[4000:] + 2) == pytest.approx(phi, abs=0.015)


def test_it_follows_its_seed() -> None:
    normal = torch.randn(200, generator=torch.Generator().manual_seed(2))
    members, others = normal[:100], normal[100:] + 0.5
    assert logistic_attack(members, others, 3) == logistic_attack(members, others, 3)
    assert logistic_attack(members, others, 3) != logistic_attack(members, others, 4)


def test_classes_are_matched() -> None:
    first = torch.tensor([0] * 5 + [1] * 2 + [3] * 4)
    second = torch.tensor([1] * 6 + [0] * 3 + [2] * 9)
    one, other = matched_by_class(first, second, torch.Generator().manual_seed(0))
    assert first[one].tolist() == second[other].tolist() == [0, 0, 0, 1, 1]
    assert len(set(one.tolist())) == len(set(other.tolist())) == 5
    again = matched_by_class(first, second, torch.Generator().manual_seed(0))
    assert [part.tolist() for part in again] == [one.tolist(), other.tolist()]


@pytest.mark.parametrize("problem", [random_problem, class_problem])
def test_what_forgot_nothing_is_found_and_what_was_retrained_is_not(problem: Callable[[], Problem]) -> None:
    given = evaluated(problem())
    assert LogisticAttack()(given) > 0.85
    assert LogisticAttack()(given.retrained) == pytest.approx(0.5, abs=0.15)
    assert LogisticAttack()(given) == LogisticAttack()(given)
    assert LogisticAttack.better == "reference"


def test_too_few_examples() -> None:
    with pytest.raises(UNDEFINED, match=r"at least 10 each, got \(8,\) members"):
        LogisticAttack()(evaluated(random_problem(share=0.034)))


def test_logits_that_are_not_finite() -> None:
    with pytest.raises(UNDEFINED, match="NaN or inf"):
        LogisticAttack()(evaluated(random_problem(), Constant(0.0, math.inf, 0.0, 0.0)))


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="two groups of one size"):
        logistic_attack(torch.zeros(20), torch.zeros(19))
    with pytest.raises(InvalidInput, match="at least 10 each"):
        logistic_attack(torch.zeros(9), torch.zeros(9))
    with pytest.raises(InvalidInput, match="must be finite"):
        logistic_attack(torch.full((10,), math.nan), torch.zeros(10))
