from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import expunge.sweep.plan as module
from expunge.errors import InvalidInput, UnknownName
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.rem import REM
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

RECIPE = Recipe(epochs=1, batch_size=32, augment=False, model_settings={"width": 4})
TASK = CorruptionTask(n_corrupted=8, patch=2, swap_classes=(1, 2), discovery=0.5)


def plan(data: DataChoice, **changed: Any) -> Plan:
    settings: dict[str, Any] = {
        "tasks": [TASK],
        "recipe": RECIPE,
        "methods": [FineTune(epochs=1)],
        "seeds": [0],
        "numerics": Numerics(channels_last=False),
    }
    return make_plan(data, **{**settings, **changed})


def only_keys(data: DataChoice, **changed: Any) -> tuple[str, str]:
    made = plan(data, **changed)
    assert len(made.cells) == len(made.trainings) == 1
    return made.cells[0].key, made.trainings[0].key


def task(**changed: Any) -> CorruptionTask:
    settings: dict[str, Any] = {"n_corrupted": 8, "patch": 2, "swap_classes": (1, 2), "discovery": 0.5}
    return CorruptionTask(**{**settings, **changed})


def test_another_process_makes_the_same_keys(easy: DataChoice) -> None:
    script = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_plan import DataChoice, plan
made = plan(DataChoice({easy.name!r}), seeds=[0, 1])
print(json.dumps([[cell.key, cell.training.key, cell.task_key] for cell in made.cells]))
"""
    # Another hash seed: nothing may hang on the order of a set.
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(Path(module.__file__).parents[2]),
    }
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    here = [[cell.key, cell.training.key, cell.task_key] for cell in plan(easy, seeds=[0, 1]).cells]
    assert json.loads(answer.stdout) == here


@pytest.mark.parametrize(
    ("changed", "same_training"),
    [
        ({"seeds": [1]}, False),
        ({"tasks": [task(regularity=0.5)]}, False),
        ({"tasks": [task(n_corrupted=9)]}, False),
        ({"recipe": Recipe(epochs=2, batch_size=32, augment=False, model_settings={"width": 4})}, False),
        ({"recipe": Recipe(epochs=1, batch_size=32, augment=False, model_settings={"width": 5})}, False),
        ({"numerics": Numerics(dtype="bfloat16", channels_last=False)}, False),
        ({"tasks": [task(discovery=1.0)]}, True),
        ({"methods": [FineTune(epochs=2)]}, True),
        ({"methods": [NoUnlearning()]}, True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_keys_follow_the_content(easy: DataChoice, changed: dict[str, Any], same_training: bool) -> None:
    cell, training = only_keys(easy)
    other_cell, other_training = only_keys(easy, **changed)
    assert other_cell != cell
    assert (other_training == training) is same_training
    assert only_keys(easy) == (cell, training)


def test_less_data_is_other_data(easy: DataChoice) -> None:
    cell, training = only_keys(easy)
    for other in (DataChoice(easy.name, n_train=48), DataChoice(easy.name, n_train=52)):
        assert only_keys(other)[0] != cell
        assert only_keys(other)[1] != training
    # the whole of it, asked for by number, is the same content
    assert only_keys(DataChoice(easy.name, n_train=96)) == (cell, training)


def test_one_training_for_all_methods_and_discovery_rates(easy: DataChoice) -> None:
    tasks = [task(regularity=r, discovery=d) for r in (0.0, 1.0) for d in (0.25, 0.5, 1.0)]
    methods = [NoUnlearning(), FineTune(epochs=2), REM(rounds=3)]
    made = plan(easy, tasks=tasks, methods=methods, seeds=[0, 1])
    assert len(made.cells) == len({cell.key for cell in made.cells}) == 2 * 6 * 3
    trained = [(training.task.regularity, training.seed) for training in made.trainings]
    assert trained == [(0.0, 0), (1.0, 0), (0.0, 1), (1.0, 1)]
    assert Counter(cell.training.key for cell in made.cells) == {
        training.key: 3 * 3 for training in made.trainings
    }
    for cell in made.cells:
        assert cell.task.regularity == cell.training.task.regularity
        assert cell.task.seed == cell.training.task.seed == cell.seed == cell.training.seed
    work = {cell.method.name: cell.work for cell in made.cells}
    # the evaluation reads 96 + 2 * 64 images forward, each a third of a training step's work; a doubled width is
    # four times the work
    measuring = (96 + 2 * 64) / 3 / 96
    assert work == pytest.approx({"none": measuring, "finetune": 2 + measuring, "rem": 12 + measuring})
    assert {training.work for training in made.trainings} == {1.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": []}, "the grid has no tasks; name at least one"),
        ({"methods": []}, "the grid has no methods; name at least one"),
        ({"seeds": []}, "the grid has no seeds; name at least one"),
        ({"tasks": [task(), task(discovery=1.0), task()]}, "names one of its tasks twice: CorruptionTask"),
        ({"methods": [NoUnlearning(), NoUnlearning()]}, r"names one of its methods twice: \('none'"),
        ({"seeds": [3, 4, 3]}, "the grid names one of its seeds twice: 3"),
    ],
)
def test_bad_grids(easy: DataChoice, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        plan(easy, **changed)


def test_one_method_with_two_settings_is_two_methods(easy: DataChoice) -> None:
    assert len(plan(easy, methods=[FineTune(epochs=1), FineTune(epochs=2)]).cells) == 2


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"tasks": [TASK, task(n_corrupted=96)]}, InvalidInput, "96 corrupted images were asked for"),
        (
            {"tasks": [TASK, task(regularity=0.5, swap_classes=(3, 5))]},
            InvalidInput,
            "class 5 does not exist",
        ),
        (
            {"tasks": [TASK, task(regularity=0.5, n_corrupted=60)]},
            InvalidInput,
            "the interclass swap needs 30 images of class 1, but easy.npz has 24",
        ),
        ({"tasks": [TASK, task(regularity=1.0, patch=9)]}, InvalidInput, "trigger of 9 pixels is larger"),
        ({"recipe": Recipe(model="resnet8")}, UnknownName, "unknown model 'resnet8'; did you mean 'resnet9'"),
        ({"recipe": Recipe(model_settings={"widht": 4})}, InvalidInput, "does not take the settings"),
    ],
)
def test_what_cannot_be_done_is_found_before_any_work(
    easy: DataChoice,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("a task was built before all of them had been checked")

    monkeypatch.setattr(module, "training_problem", build)
    with pytest.raises(error, match=message):
        plan(easy, **changed)


def test_all_faults_on_the_data_are_told_at_once(easy: DataChoice) -> None:
    tasks = [task(n_corrupted=96), task(n_corrupted=97), task(n_corrupted=97, discovery=1.0), task()]
    with pytest.raises(InvalidInput) as caught:
        plan(easy, tasks=tasks, recipe=Recipe(model="resnet8"))
    assert str(caught.value).splitlines()[0].startswith("the grid has 3 faults on ")
    assert str(caught.value).count("97 corrupted images") == 1
    assert "unknown model 'resnet8'" in str(caught.value)


def test_a_part_of_a_plan_keeps_what_it_needs(easy: DataChoice) -> None:
    made = plan(easy, tasks=[task(), task(regularity=1.0)], methods=[NoUnlearning(), FineTune()])
    part = Plan.of([*made.cells[2:], made.cells[3]])
    assert part.cells == made.cells[2:]
    assert part.trainings == made.trainings[1:]
    assert Plan.of(made.cells) == made


def test_planning_leaves_the_global_generator_alone(easy: DataChoice) -> None:
    before = torch.random.get_rng_state()
    plan(easy)
    assert torch.equal(before, torch.random.get_rng_state())
