from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge.errors import InvalidInput, UnknownName
from expunge.methods.finetune import FineTune
from expunge.store.weights import WeightStore
from expunge.sweep.grid import Grid
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.sweep.run import run_cell, run_training
from expunge.sweep.select import select
from expunge.tasks.forgetting import ForgetClasses
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

RECIPE = Recipe(epochs=1, batch_size=16, augment=False, model_settings={"width": 8})
TUNE = FineTune(epochs=1, batch_size=16, augment=False)
TEXT = """
run = ["none"]
seeds = [0]
[data]
name = "digits"
[[tasks]]
kind = "classes"
classes = [3]
"""


def plan_of(data: DataChoice, *unlearning_seeds: int, seeds: tuple[int, ...] = (0, 1)) -> Plan:
    numerics = Numerics(channels_last=False)
    return make_plan(
        data,
        [ForgetClasses(classes=(1,))],
        RECIPE,
        [TUNE],
        seeds,
        numerics,
        unlearning_seeds=unlearning_seeds,
    )


def test_every_pair_of_seeds_is_a_cell(easy: DataChoice) -> None:
    plan = plan_of(easy, 0, 1, 5)
    pairs = [(cell.seed, cell.unlearning_seed) for cell in plan.cells]
    assert pairs == [(0, 0), (0, 1), (0, 5), (1, 0), (1, 1), (1, 5)]
    assert len(plan.trainings) == 2
    assert len({cell.key for cell in plan.cells}) == 6


def test_without_any_it_is_the_seed(easy: DataChoice) -> None:
    default, varied = plan_of(easy), plan_of(easy, 0, 1)
    assert [cell.unlearning_seed for cell in default.cells] == [0, 1]
    # A cell of the same seeds is the same cell, and is not run again.
    assert {cell.key for cell in default.cells} < {cell.key for cell in varied.cells}
    assert default.cells[1].key == varied.cells[3].key


def test_a_seed_twice(easy: DataChoice) -> None:
    with pytest.raises(InvalidInput, match="names one of its unlearning seeds twice: 3"):
        plan_of(easy, 3, 3)


def test_the_unlearning_follows_its_own_seed(easy: DataChoice, tmp_path: Path) -> None:
    plan = plan_of(easy, 0, 1, seeds=(0,))
    run_training(plan.trainings[0], tmp_path)
    records = [run_cell(cell, tmp_path, keep_weights=True) for cell in plan.cells]
    assert [(record.seed, record.training_seed, record.unlearning_seed) for record in records] == [
        (0, 0, 0),
        (0, 0, 1),
    ]
    assert records[0].model_key == records[1].model_key
    first, second = (WeightStore(tmp_path).load(record.weights_key) for record in records)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_selection(easy: DataChoice) -> None:
    assert len(select(plan_of(easy, 0, 1, 5), ["unlearning_seed=5", "seed=0"]).cells) == 1
    with pytest.raises(UnknownName, match="the grid has no 'unlearning_seed' to select by"):
        select(plan_of(easy), ["unlearning_seed=1"])


def test_grid_keys() -> None:
    grid = Grid.parse('unlearning_seeds = [0, 7]\nmetrics = ["tow"]\n' + TEXT, "g")
    assert grid.unlearning_seeds == (0, 7)
    assert grid.metrics == ("tow",)
    plain = Grid.parse(TEXT, "g")
    assert (plain.unlearning_seeds, plain.metrics) == ((), ())


def test_grid_faults() -> None:
    with pytest.raises(
        InvalidInput, match=r"'unlearning_seeds' must be a list.*whole numbers(?s:.*)unknown metric 'tov'"
    ):
        Grid.parse('unlearning_seeds = 3\nmetrics = ["tov"]\n' + TEXT, "g")
    with pytest.raises(InvalidInput, match=r"'metrics' must be a list of at least one of: metric names"):
        Grid.parse("metrics = []\n" + TEXT, "g")
    with pytest.raises(InvalidInput, match="'population' is a number of models, at least"):
        Grid.parse('metrics = ["klom"]\npopulation = 1\n' + TEXT, "g")


def test_grid_plans_carry_both() -> None:
    grid = Grid.parse('unlearning_seeds = [0, 7]\nmetrics = ["tow"]\n' + TEXT, "g")
    plan = grid.plan(Numerics(channels_last=False))
    assert [cell.unlearning_seed for cell in plan.cells] == [0, 7]
    assert [reference.role for reference in plan.references] == ["retrained", "second_retrained"]
