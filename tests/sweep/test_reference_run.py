from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

import expunge.sweep.run as module
from expunge.errors import InvalidInput, StoreError
from expunge.fingerprint import fingerprint
from expunge.methods.base import Method
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.methods.retrain_corrected import RetrainCorrected
from expunge.metrics.base import Evaluated
from expunge.metrics.compared_predictions import activation_distance
from expunge.metrics.composites import ToW
from expunge.populations.assess import assess_population
from expunge.populations.population import PopulationSettings
from expunge.store.record import Record
from expunge.store.store import Store
from expunge.store.weights import WeightStore
from expunge.sweep.execute import execute
from expunge.sweep.plan import (
    KEY_VERSION,
    Cell,
    DataChoice,
    Plan,
    Reference,
    Training,
    build_problem,
    make_plan,
)
from expunge.sweep.run import load_reference, load_trained, run_reference
from expunge.sweep.select import select
from expunge.tasks.base import Task
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetHardest
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = Recipe(epochs=2, batch_size=16, augment=False, model_settings={"width": 8})
NUMERICS = Numerics(channels_last=False)
CLASSES = ForgetClasses(classes=(1,))
HARDEST = ForgetHardest(share=0.1)
METRICS = ("tow", "activation_distance", "class_damage")
BOTH = (NoUnlearning(), NPO())
Job = Training | Reference | Cell


def corruption(discovery: float = 0.5) -> CorruptionTask:
    return CorruptionTask(regularity=1.0, n_corrupted=10, patch=2, discovery=discovery)


def plan_of(
    data: DataChoice,
    tasks: Sequence[Task] = (CLASSES,),
    methods: Sequence[Method] = BOTH,
    metrics: Sequence[str] = METRICS,
    recipe: Recipe = RECIPE,
    **more: Any,
) -> Plan:
    return make_plan(data, tasks, recipe, methods, more.pop("seeds", (0,)), NUMERICS, metrics=metrics, **more)


class Inline:
    """Carries out each job at once, and notes it."""

    slots = 3

    def __init__(self) -> None:
        self.ran: list[Job] = []

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        self.ran.append(args[0])
        future = Future[Any]()
        try:
            future.set_result(task(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        pass


def run(plan: Plan, folder: Path) -> tuple[list[Record], list[Job]]:
    engine = Inline()
    with Store(folder) as store:
        execute(plan, store, engine=engine)
        return store.database.records(), engine.ran


def test_populations_are_trained_for_the_metrics_that_need_them(easy: DataChoice, tmp_path: Path) -> None:
    recipe = Recipe(model="mlp", epochs=2, batch_size=16, augment=False, model_settings={"hidden": 8})
    methods, named = (NoUnlearning(), RetrainCorrected()), ("klom", "ulira")
    plan = plan_of(easy, methods=methods, metrics=named, recipe=recipe, population=24)
    assert plan.references == ()
    assert {cell.population for cell in plan.cells} == {24}
    fewer = plan_of(easy, methods=methods, metrics=named, recipe=recipe, population=16)
    assert {cell.key for cell in fewer.cells}.isdisjoint(cell.key for cell in plan.cells)
    assert {cell.population for cell in plan_of(easy, population=24).cells} == {0}

    records = {record.method: record for record in run(plan, tmp_path)[0]}
    cell, record = plan.cells[0], records["none"]
    problem = build_problem(cell.training, cell.task, tmp_path / "weights")
    settings = PopulationSettings(recipe=recipe, n_models=24, seed=0)
    alone = assess_population(
        NoUnlearning(), problem, settings, WeightStore(tmp_path / "weights"), numerics=NUMERICS, workers=1
    )
    assert (alone.trained, alone.unlearned) == (0, 0)  # the sweep has made them
    for name in ("ulira_accuracy", "klom_forget", "klom_retain"):
        found = alone.values[name]
        assert record.metrics[name] == {
            "value": found.value, "low": found.low, "high": found.high, "retrained": found.floor,
        }  # fmt: skip
        assert record.number(name) is not None
    # An oracle has no population: nobody knows the truth of its parts.
    assert records["retrain_corrected"].metrics["klom_forget"] == {"value": None}


def test_without_metrics_nothing_is_added_and_keys_stay(easy: DataChoice) -> None:
    for cell in plan_of(easy, [CLASSES, corruption()], metrics=()).cells:
        assert cell.references == ()
        expected = fingerprint(
            cell.task_key, cell.training.key, cell.method.name, cell.method, cell.seed, KEY_VERSION
        )
        assert cell.key == expected
    assert plan_of(easy, metrics=()).references == ()
    assert plan_of(easy, metrics=("utility", "rf_jsd")).references == ()


def test_references_are_shared_by_the_cells_of_a_task(easy: DataChoice) -> None:
    plan = plan_of(easy, [corruption(0.2), corruption(0.8)], seeds=(0, 1), metrics=("tow", "loss_attack"))
    roles = [reference.role for reference in plan.references]
    # The forget set, and with it the retrained model, depends on the discovery rate; the oracle does not.
    assert {role: roles.count(role) for role in set(roles)} == {
        "retrained": 4,
        "second_retrained": 4,
        "oracle": 2,
    }
    assert len({reference.seed for reference in plan.references}) == 6
    by_task: dict[str, set[tuple[str, ...]]] = {}
    for cell in plan.cells:
        by_task.setdefault(cell.task_key, set()).add(tuple(job.key for job in cell.references))
    assert [len(found) for found in by_task.values()] == [1, 1, 1, 1]


def test_the_key_knows_the_metrics_but_not_their_order(easy: DataChoice) -> None:
    keys = [
        plan_of(easy, metrics=names).cells[0].key
        for names in ((), ("tow",), ("tow", "utility"), ("utility", "tow"))
    ]
    assert keys[2] == keys[3]
    assert len(set(keys)) == 3


def test_a_part_of_a_plan_keeps_the_references_it_needs(easy: DataChoice) -> None:
    plan = plan_of(easy, [CLASSES, ForgetClasses(classes=(2,))])
    part = select(plan, ["classes=2"])
    assert len(plan.references) == 4
    assert {job.key for job in part.references} == {job.key for cell in part.cells for job in cell.references}
    assert len(part.references) == 2


def test_a_metric_named_twice(easy: DataChoice) -> None:
    with pytest.raises(InvalidInput, match="names one of its metrics twice: tow"):
        plan_of(easy, metrics=("tow", "tow"))


def test_values_are_those_of_the_models(easy: DataChoice, tmp_path: Path) -> None:
    plan = plan_of(easy, methods=(NoUnlearning(),))
    records, ran = run(plan, tmp_path)
    assert [type(job) for job in ran].count(Reference) == 2
    found, cell = records[0].metrics, plan.cells[0]
    folder = tmp_path / "weights"
    problem = build_problem(cell.training, cell.task, folder)
    models = {job.role: load_reference(job, folder) for job in cell.references}
    models["unlearned"] = load_trained(cell.training, folder)[0]
    evaluated: dict[str, Evaluated] = {}
    evaluated |= {role: Evaluated(model, problem, NUMERICS, evaluated) for role, model in models.items()}
    logits = {role: model.forget.logits for role, model in evaluated.items()}
    aim = logits["retrained"]
    distance, tow = found["activation_distance"], found["tow"]
    assert distance["value"] == pytest.approx(activation_distance(logits["unlearned"], aim))
    assert distance["floor"] == pytest.approx(activation_distance(logits["second_retrained"], aim))
    assert distance["floor"] > 0
    assert distance["retrained"] == 0
    assert tow["value"] == pytest.approx(ToW()(evaluated["unlearned"]))
    assert tow["retrained"] == 1
    assert tow["floor"] == pytest.approx(1 - ToW()(evaluated["second_retrained"]))
    # It compares with the original alone: there is no aim and no floor.
    assert found["class_damage"] == {"value": 0}


def test_retrained_without_the_forget_set_and_the_oracle_on_true_labels(
    easy: DataChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    train = Recipe.train

    def watched(self: Recipe, model: Any, examples: Any, seed: int, *args: Any, **named: Any) -> Any:
        seen.append((seed, examples.labels))
        return train(self, model, examples, seed, *args, **named)

    monkeypatch.setattr(Recipe, "train", watched)
    plan = plan_of(easy, [corruption()], metrics=("loss_attack",))
    for job in plan.references:
        run_reference(job, tmp_path)
        run_reference(job, tmp_path)  # it is there
    problem = build_problem(plan.trainings[0], plan.cells[0].task, tmp_path)
    retain, true = problem.split.retain.labels, problem.truth.true_labels
    assert len(seen) == 3
    for (seed, labels), job in zip(seen, plan.references, strict=True):
        assert seed == job.seed
        assert torch.equal(labels, true if job.role == "oracle" else retain)
    assert not torch.equal(problem.split.train.labels, true)


def test_each_is_trained_and_measured_once(
    easy: DataChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = module.measure
    monkeypatch.setattr(
        module, "measure", lambda metric, model: (measured.append(metric.name), measure(metric, model))[1]
    )
    plan = plan_of(easy, [corruption()], metrics=("tow", "loss_attack"))
    records, ran = run(plan, tmp_path)
    kinds = [type(job) for job in ran]
    assert (kinds.count(Training), kinds.count(Reference), kinds.count(Cell)) == (1, 3, 2)
    assert kinds.index(Cell) == 4
    # Two cells, and three references once.
    assert (measured.count("tow"), measured.count("loss_attack")) == (2 + 3, 2 + 3)
    assert {record.metrics["loss_attack"]["oracle"] is None for record in records} == {False}
    again, none = run(plan, tmp_path)
    assert none == []
    assert again == records


def test_default_and_extended_cells_live_in_one_store(easy: DataChoice, tmp_path: Path) -> None:
    run(plan_of(easy, metrics=()), tmp_path)
    records, ran = run(plan_of(easy), tmp_path)
    assert len(records) == 4
    assert len({record.model_key for record in records}) == 1
    assert isinstance(ran[0], Training)  # it finds its weights


def test_hardest_examples_wait_for_the_first_model(easy: DataChoice, tmp_path: Path) -> None:
    plan = plan_of(easy, [HARDEST], metrics=("tow",))
    assert {job.requires for job in plan.references} == {(plan.trainings[0].key,)}
    records, ran = run(plan, tmp_path)
    assert [type(job) for job in ran] == [Training, Reference, Reference, Cell, Cell]
    assert {record.status for record in records} == {"done"}


def test_a_reference_that_fails_takes_its_cells_along(
    easy: DataChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Recipe.train
    plan = plan_of(easy, [CLASSES, ForgetClasses(classes=(2,))], metrics=("tow",))
    broken = plan.references[0].seed

    def fails(self: Recipe, model: Any, examples: Any, seed: int, *args: Any, **named: Any) -> Any:
        wild = (
            dataclasses.replace(self, optimiser=Optimiser(lr=1e30))
            if seed == broken and not bool((examples.labels == 1).any())
            else self
        )
        return train(wild, model, examples, seed, *args, **named)

    monkeypatch.setattr(Recipe, "train", fails)
    records, _ = run(select(plan, ["classes=1"]), tmp_path)
    assert {record.status for record in records} == {"failed"}
    assert "the training of the retrained model failed: Diverged: the retrained model" in records[0].error
    others, _ = run(plan, tmp_path)
    assert sorted(record.status for record in others) == ["done", "done", "failed", "failed"]


def test_a_first_training_that_fails_leaves_no_reference_to_train(easy: DataChoice, tmp_path: Path) -> None:
    wild = dataclasses.replace(RECIPE, optimiser=Optimiser(lr=1e30))
    records, ran = run(plan_of(easy, [HARDEST], recipe=wild), tmp_path)
    assert [type(job) for job in ran] == [Training]
    assert "the training of the original model failed" in records[0].error


def test_a_reference_that_is_not_there(easy: DataChoice, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there are no weights"):
        load_reference(plan_of(easy).references[0], tmp_path)
