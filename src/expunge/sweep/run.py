"""Carry out one planned job; knows nothing of the others."""

from __future__ import annotations

import dataclasses
import os
import platform
import traceback
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

import expunge
from expunge.errors import ExpungeError
from expunge.evaluation.evaluate import evaluate
from expunge.methods.base import Request
from expunge.metrics.base import Evaluated
from expunge.store.record import Record
from expunge.store.weights import CannotWrite, WeightStore
from expunge.sweep.original_model import train_original
from expunge.sweep.plan import CODES, DIFFICULTY, Cell, Training, build_problem, training_problem
from expunge.sweep.reference_run import measure_chosen


def run_training(job: Training, folder: Path | str) -> float | None:
    """Train an original model and store it under its key, unless it is there.

    Its file also holds the mean training loss of every example and the mnemonic codes, if there are any.
    Returns the share of the corruption that it has learned, ``None`` where nothing is corrupted.

    Raises:
        Diverged: the training led to NaN.
    """
    weights = WeightStore(folder)
    if weights.has(job.key):
        return learned_corruption(weights, job.key)
    problem = training_problem(job.data, job.task, job.numerics.device)
    first = train_original(job.recipe, problem, job.seed, job.numerics)
    extra: dict[str, Tensor] = {}
    if first.difficulty is not None:
        extra[DIFFICULTY] = first.difficulty
    codes = job.recipe.draw_codes(job.seed, problem.shape, problem.n_classes)
    if codes is not None:
        extra[CODES] = codes
    learned = Evaluated(first.model, problem, job.numerics).corruption_learned
    weights.save(
        job.key,
        {**first.model.state_dict(), **extra},
        {"corruption_learned": repr(learned), "seconds": f"{first.seconds:.3f}"},
    )
    return learned


def learned_corruption(weights: WeightStore, key: str) -> float | None:
    """Share of the corruption that a stored original model has learned; ``None`` where nothing is corrupted."""
    text = weights.metadata(key)["corruption_learned"]
    return None if text == "None" else float(text)


def run_cell(cell: Cell, folder: Path | str, keep_weights: bool = False) -> Record:
    """Unlearn, measure, and return the record; an error becomes a failed record."""
    try:
        return _run_cell(cell, folder, keep_weights)
    except CannotWrite:
        raise  # no property of the cell: every other one would fail as well
    except ExpungeError as error:
        return failed_record(cell, f"{type(error).__name__}: {error}")
    except Exception:  # a third party's method may raise anything; the sweep goes on
        return failed_record(cell, traceback.format_exc(limit=-6))


def _run_cell(cell: Cell, folder: Path | str, keep_weights: bool) -> Record:
    training, problem = cell.training, build_problem(cell.training, cell.task, folder)
    weights = WeightStore(folder)
    if not weights.has(cell.task_key):
        weights.save(cell.task_key, problem.tensors(), {"task": repr(cell.task)})
    model, codes = load_trained(training, folder)
    request = Request(
        problem.split,
        seed=cell.unlearning_seed,
        numerics=training.numerics,
        recipe=training.recipe,
        truth=problem.truth,
        codes=codes,
    )
    unlearned = cell.method(model, request)
    metrics = evaluate(unlearned.model, problem, training.numerics, augment=training.recipe.augment)
    if cell.metrics:
        metrics["metrics"] |= measure_chosen(cell, unlearned.model, model, problem, folder)
    if keep_weights:
        weights.save(cell.key, unlearned.model.state_dict(), {"method": cell.method.name})
    cost = unlearned.cost
    return _record(
        cell,
        status="done",
        weights_key=cell.key if keep_weights else "",
        seconds=cost.seconds,
        sample_gradients=cost.sample_gradients,
        peak_memory=cost.peak_memory,
        parameters_before=cost.parameters["before"],
        parameters_during=cost.parameters["during"],
        parameters_after=cost.parameters["after"],
        log=cost.log,
        **metrics,
    )


def load_trained(training: Training, folder: Path | str) -> tuple[nn.Module, Tensor | None]:
    """Return the stored original model, and the mnemonic codes it was trained with if it was."""
    images = training.data.load(training.numerics.device)
    model = training.recipe.build(images.shape, len(images.classes), torch.Generator())
    tensors = WeightStore(folder).load(training.key, training.numerics.device)
    tensors.pop(DIFFICULTY, None)
    codes = tensors.pop(CODES, None)
    model.load_state_dict(tensors)
    return training.numerics.place(model), codes


def failed_record(cell: Cell, error: str) -> Record:
    """The record of a cell that could not be finished."""
    return _record(cell, status="failed", error=error)


def _record(cell: Cell, **outcome: object) -> Record:
    training, task = cell.training, cell.task
    return Record(
        key=cell.key,
        data=training.data.label,
        task=task.kind,
        task_settings=dataclasses.asdict(task),
        regularity=getattr(task, "regularity", None),
        discovery=getattr(task, "discovery", None),
        n_corrupted=getattr(task, "n_corrupted", 0),
        model=training.recipe.model,
        method=cell.method.name,
        settings=cell.method.settings(),
        recipe=dataclasses.asdict(training.recipe),
        oracle=cell.method.oracle,
        seed=cell.seed,
        data_seed=task.seed,
        training_seed=training.seed,
        unlearning_seed=cell.unlearning_seed,
        task_key=cell.task_key,
        model_key=training.key,
        provenance={
            "expunge": expunge.__version__,
            "torch": torch.__version__,
            "device": training.numerics.device,
            "dtype": training.numerics.dtype,
            "devices": str(training.numerics.devices.count),
            "threads": str(torch.get_num_threads()),
            "cpus": str(os.cpu_count()),
            "machine": platform.machine(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        **outcome,  # type: ignore[arg-type]
    )
