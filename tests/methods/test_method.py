from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from expunge.errors import Diverged, ExpungeError, InvalidInput, UndeclaredNeed, UnknownName
from expunge.methods.base import Method, Needs, Request, positive
from expunge.methods.no_unlearning import NoUnlearning
from expunge.testing.method_contract import Case, MethodContract, vector_case


@dataclass(frozen=True, kw_only=True)
class Shrink(Method):
    """Multiply every parameter by a factor."""

    name: ClassVar[str] = "shrink"
    needs: ClassVar[Needs] = Needs.FORGET

    factor: float = 0.5

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= self.factor
        return model


class Replace(Shrink):
    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        return nn.Linear(5, 3)


class Peek(Shrink):
    needs: ClassVar[Needs] = Needs.FORGET | Needs.RECIPE

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        len(request.retain)
        return model


@pytest.fixture
def case() -> Case:
    return vector_case()


def test_result(case: Case) -> None:
    model = case.fresh()
    outcome = Shrink()(model, case.request(Shrink()))
    for ours, given in zip(outcome.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, given / 2)
    assert outcome.log == []
    assert outcome.method == Shrink()


def test_other_shapes_are_refused(case: Case) -> None:
    with pytest.raises(
        ExpungeError, match="method 'shrink' returned a model with other parameter names or shapes"
    ):
        Replace()(case.model, case.request(Replace()))


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_result_that_is_not_finite_is_refused(case: Case, factor: float) -> None:
    with pytest.raises(
        Diverged, match=r"method 'shrink' left NaN or inf in '0.weight'; lower its learning rate"
    ):
        Shrink(factor=factor)(case.model, case.request(Shrink()))


def test_a_model_without_parameters_is_refused(case: Case) -> None:
    with pytest.raises(InvalidInput, match="Flatten has no parameters; there is nothing to unlearn"):
        Shrink()(nn.Flatten(), case.request(Shrink()))


def test_undeclared_need(case: Case) -> None:
    expected = "method 'shrink' reads 'retain' but declares only 'forget, recipe'; add it to `needs`"
    with pytest.raises(UndeclaredNeed, match=expected):
        Peek()(case.model, case.request(Peek()))


def test_whole_training_set_needs_both_parts(case: Case) -> None:
    granted = case.request(Shrink()).grant("shrink", Needs.FORGET)
    with pytest.raises(UndeclaredNeed, match="reads 'forget, retain' but declares only 'forget'"):
        granted.train  # noqa: B018


def test_a_request_that_was_not_granted_refuses_everything(case: Case) -> None:
    with pytest.raises(UndeclaredNeed, match="declares only 'nothing'"):
        case.request(Shrink()).forget  # noqa: B018


def test_missing_recipe(case: Case) -> None:
    bare = Request(case.split, seed=0, numerics=case.numerics)
    with pytest.raises(
        InvalidInput,
        match=r"needs what this request does not have: the recipe .* Methods that would do: finetune, .*rem",
    ):
        Peek()(case.model, bare)


def test_unknown_setting() -> None:
    with pytest.raises(
        UnknownName,
        match=r"method 'shrink' has no setting 'facto'; did you mean 'factor'\? \(settings: recalibrate, factor\)",
    ):
        Shrink.configured({"facto": 1})
    with pytest.raises(UnknownName, match=r"method 'none' has no setting 'x' \(settings: recalibrate\)"):
        NoUnlearning.configured({"x": 1})


def test_generators_follow_seed_and_role(case: Case) -> None:
    def draw(seed: int, *roles: str | int) -> float:
        return float(torch.rand((), generator=case.request(Shrink(), seed).generator(*roles)))

    assert draw(1, "order") == draw(1, "order")
    assert len({draw(1, "order"), draw(2, "order"), draw(1, "masks"), draw(1, "order", 1)}) == 4


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_positive(value: float) -> None:
    with pytest.raises(InvalidInput, match=f"beta must be positive and finite, got {value}"):
        positive(lr=1.0, beta=value)


class Greedy(Shrink):
    """Breaks the contract in a way of the test's choice."""

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        torch.manual_seed(0)
        return super().unlearn(model, request)


def test_the_contract_catches_what_it_is_for() -> None:
    contract = MethodContract()
    contract.method, contract.margin = Greedy(), 2.0
    with pytest.raises(AssertionError, match="the method used torch's global generator"):
        contract.test_same_seed_gives_same_weights()
    with pytest.raises(AssertionError, match=r"by less than the margin of 2\.0"):
        contract.test_forgets()
    with pytest.raises(AssertionError, match="the weights changed but no sample gradient was counted"):
        contract.test_cost_is_filled()
