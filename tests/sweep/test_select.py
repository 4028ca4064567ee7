from __future__ import annotations

import pytest

from expunge.errors import InvalidInput, UnknownName
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.rem import REM, IdealREM
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.sweep.select import select
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

CORRUPTION = tuple(
    CorruptionTask(n_corrupted=8, patch=2, swap_classes=(1, 2), regularity=regularity, discovery=discovery)
    for regularity in (0.0, 1.0)
    for discovery in (0.25, 1.0)
)


@pytest.fixture(scope="module")
def plan(easy: DataChoice) -> Plan:
    """Four corruption tasks and three of forgetting, four methods, two seeds."""
    tasks = (*CORRUPTION, ForgetClasses(classes=(1,)), ForgetClasses(classes=(1, 2)), ForgetRandom(share=0.1))
    methods = (NoUnlearning(), FineTune(), REM(), IdealREM())
    recipe = Recipe(epochs=1, model_settings={"width": 4})
    return make_plan(easy, tasks, recipe, methods, (0, 1), Numerics(channels_last=False))


@pytest.mark.parametrize(
    ("only", "count"),
    [
        (["rem"], 7 * 2),
        (["rem", "none"], 2 * 7 * 2),
        (["rem*"], 2 * 7 * 2),
        (["method=rem", "seed=0"], 7),
        (["corruption"], 4 * 4 * 2),
        (["poison"], 2 * 4 * 2),
        (["poison", "none"], 2 * 2),
        (["regularity=poison", "discovery=0.25"], 4 * 2),
        (["regularity=1", "regularity=random"], 4 * 4 * 2),
        (["discovery = 1"], 2 * 4 * 2),
        (["task=random"], 4 * 2),
        (["share=0.1"], 4 * 2),
        (["classes=1+2"], 4 * 2),
        (["classes"], 2 * 4 * 2),
        (["seed=0", "seed=1"], 7 * 4 * 2),
        (["resnet9"], 7 * 4 * 2),
    ],
)
def test_counts(plan: Plan, only: list[str], count: int) -> None:
    assert len(select(plan, only).cells) == count


def test_what_is_selected(plan: Plan) -> None:
    found = select(plan, ["rem", "seed=1", "regularity=poison"])
    assert [(cell.method.name, cell.seed) for cell in found.cells] == [("rem", 1)] * 2
    assert [cell.task.discovery for cell in found.cells] == [0.25, 1.0]  # type: ignore[attr-defined]
    assert len(found.trainings) == 1
    assert all(cell in plan.cells for cell in found.cells)


@pytest.mark.parametrize(
    ("only", "error", "message"),
    [
        (
            ["rme"],
            UnknownName,
            r"nothing in the grid is named 'rme'; did you mean 'rem'\?; the grid has method: none,",
        ),
        (["seed=7"], UnknownName, r"no cell has seed=7; the grid has .*seed: 0, 1"),
        (["seed=first"], UnknownName, "no cell has seed=first"),
        (["regularity=0.5"], UnknownName, r"no cell has regularity=0.5; .*regularity: random, poison"),
        (["regularity=poisn"], UnknownName, "no cell has regularity=poisn"),
        (["sed=1"], UnknownName, r"no 'sed' to select by; did you mean 'seed'\? \(keys: method, task"),
        (["random"], InvalidInput, "'random' may mean task=random or regularity=random; write one of them"),
        (["classes=1", "poison"], InvalidInput, "no cell of the grid is all of classes=1, regularity=poison"),
        (["method="], UnknownName, "no cell has method=;"),
    ],
)
def test_what_is_not_there(plan: Plan, only: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        select(plan, only)
