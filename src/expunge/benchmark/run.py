"""Carry out one planned job; knows nothing of the others."""

from __future__ import annotations

import dataclasses
import os
import platform
import traceback
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

import expunge
from expunge.benchmark.plan import Cell, Training, build_problem
from expunge.errors import ExpungeError
from expunge.evaluation import evaluate
from expunge.methods.base import Request, Unlearned
from expunge.metrics.base import Evaluated
from expunge.seeding import generator
from expunge.store.record import Record
from expunge.store.weights import WeightStore
from expunge.training.cost import Meter


def run_training(job: Training, folder: Path) -> float:
    """Train a first model and store it under its key, unless it is there; with it the task's draws.

    Returns the share of the corruption that it has learned.

    Raises:
        Diverged: the training led to NaN.
    """
    weights = WeightStore(folder)
    problem = build_problem(job.data, job.task, job.numerics.device)
    if weights.has(job.key):
        return float(weights.metadata(job.key)["corruption_learned"])
    model = job.recipe.build(problem.shape, problem.n_classes, generator(job.seed, "initialisation"))
    with Meter(job.numerics.device) as meter:
        job.recipe.train(model, problem.split.train, job.seed, job.numerics, meter)
    learned = Evaluated(model, problem, job.numerics).corruption_learned
    weights.save(
        job.key, model.state_dict(), {"corruption_learned": repr(learned), "seconds": f"{meter.seconds:.3f}"}
    )
    return learned


def run_cell(cell: Cell, folder: Path, keep_weights: bool = False) -> Record:
    """Unlearn, measure, and return the record; an error becomes a failed record."""
    try:
        return _run_cell(cell, folder, keep_weights)
    except ExpungeError as error:
        return failed_record(cell, f"{type(error).__name__}: {error}")
    except Exception:  # a third party's method may raise anything; the sweep goes on
        return failed_record(cell, traceback.format_exc(limit=-6))


def _run_cell(cell: Cell, folder: Path, keep_weights: bool) -> Record:
    training = cell.training
    problem = build_problem(training.data, cell.task, training.numerics.device)
    weights = WeightStore(folder)
    if not weights.has(cell.task_key):
        weights.save(cell.task_key, problem.tensors(), {"task": repr(cell.task)})
    model = load_trained(training, folder)
    request = Request(
        problem.split,
        seed=cell.seed,
        numerics=training.numerics,
        recipe=training.recipe,
        truth=problem.truth,
    )
    unlearned = cell.method(model, request)
    metrics = evaluate(unlearned.model, problem, training.numerics)
    if keep_weights:
        weights.save(cell.key, unlearned.model.state_dict(), {"method": cell.method.name})
    return _record(
        cell, status="done", weights_key=cell.key if keep_weights else "", **metrics, **_cost(unlearned)
    )


def load_trained(training: Training, folder: Path) -> nn.Module:
    """Return the stored first model."""
    problem = build_problem(training.data, training.task, training.numerics.device)
    model = training.recipe.build(problem.shape, problem.n_classes, torch.Generator())
    model.load_state_dict(WeightStore(folder).load(training.key, training.numerics.device))
    return training.numerics.place(model)


def _cost(unlearned: Unlearned) -> dict[str, object]:
    cost = unlearned.cost
    return {
        "seconds": cost.seconds,
        "sample_gradients": cost.sample_gradients,
        "peak_memory": cost.peak_memory,
        "parameters_before": cost.parameters["before"],
        "parameters_during": cost.parameters["during"],
        "parameters_after": cost.parameters["after"],
        "log": cost.log,
    }


def failed_record(cell: Cell, error: str) -> Record:
    """The record of a cell that could not be finished."""
    return _record(cell, status="failed", error=error)


def _record(cell: Cell, **outcome: object) -> Record:
    training, task = cell.training, cell.task
    return Record(
        key=cell.key,
        data=training.data.name
        if training.data.n_train is None
        else f"{training.data.name}[{training.data.n_train}]",
        regularity=task.regularity,
        discovery=task.discovery,
        n_corrupted=task.n_corrupted,
        model=training.recipe.model,
        method=cell.method.name,
        settings=cell.method.settings(),
        recipe=dataclasses.asdict(training.recipe),
        oracle=cell.method.oracle,
        seed=cell.seed,
        data_seed=task.seed,
        training_seed=training.seed,
        unlearning_seed=cell.seed,
        task_key=cell.task_key,
        model_key=training.key,
        provenance={
            "expunge": expunge.__version__,
            "torch": torch.__version__,
            "device": training.numerics.device,
            "dtype": training.numerics.dtype,
            "threads": str(torch.get_num_threads()),
            "cpus": str(os.cpu_count()),
            "machine": platform.machine(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        **outcome,  # type: ignore[arg-type]
    )
