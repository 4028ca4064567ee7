"""Carry out one planned job: train an original model or a reference, or unlearn and measure a cell."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

import expunge
from expunge.errors import ExpungeError
from expunge.evaluation.evaluate import compared, evaluate, load_metrics
from expunge.evaluation.references import ORACLE, RETRAINED, SECOND, train_reference
from expunge.fingerprint import fingerprint
from expunge.methods.base import Request
from expunge.metrics.base import Compares, Evaluated, Metric, measure
from expunge.metrics.of_populations import PopulationMetric
from expunge.populations.assess import assess_population
from expunge.populations.population import PopulationSettings
from expunge.seeding import generator
from expunge.store.record import VALUE, Record
from expunge.store.weights import CannotWrite, WeightStore
from expunge.sweep.original_model import train_original
from expunge.sweep.plan import (
    CODES,
    DIFFICULTY,
    KEY_VERSION,
    Cell,
    Reference,
    Training,
    build_problem,
    training_problem,
)
from expunge.tasks.base import Problem

_Values = dict[str, dict[str, float | None]]
"""Name of a number -> role of a model, or what stands beside it -> value, ``None`` where it is not defined."""


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
    tensors = first.model.state_dict()
    if first.difficulty is not None:
        tensors[DIFFICULTY] = first.difficulty
    codes = job.recipe.draw_codes(job.seed, problem.shape, problem.n_classes)
    if codes is not None:
        tensors[CODES] = codes
    learned = Evaluated(first.model, problem, job.numerics).corruption_learned
    about = {"corruption_learned": repr(learned), "seconds": f"{first.seconds:.3f}"}
    weights.save(job.key, tensors, about)
    return learned


def learned_corruption(weights: WeightStore, key: str) -> float | None:
    """Share of the corruption that a stored original model has learned; ``None`` where nothing is corrupted."""
    text = weights.metadata(key)["corruption_learned"]
    return None if text == "None" else float(text)


def run_reference(job: Reference, folder: Path | str) -> None:
    """Train a reference and store it under its key, unless it is there.

    The retrained ones see the retain set, undiscovered corruption included; the oracle sees everything, with the
    true labels.

    Raises:
        Diverged: the training led to NaN; the message names the role.
    """
    weights = WeightStore(folder)
    if weights.has(job.key):
        return
    problem = build_problem(job.training, job.task, folder)
    examples = problem.split.retain
    if job.role == ORACLE:
        examples = problem.split.train.relabel(problem.truth.true_labels)
    model = job.recipe.build(problem.shape, problem.n_classes, generator(job.seed, "initialisation"))
    seconds = train_reference(model, examples, job.recipe, job.seed, job.training.numerics, job.role)
    weights.save(job.key, model.state_dict(), {"role": job.role, "seconds": f"{seconds:.3f}"})


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
    training = cell.training
    problem = build_problem(training, cell.task, folder)
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
        metrics["metrics"] |= _measure_chosen(cell, unlearned.model, model, problem, folder)
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
    return _load(training, training, folder)


def load_reference(job: Reference, folder: Path | str) -> nn.Module:
    """Return a stored reference, in evaluation mode; raises StoreError where it cannot be read."""
    return _load(job, job.training, folder)[0].eval()


def _load(
    job: Training | Reference, training: Training, folder: Path | str
) -> tuple[nn.Module, Tensor | None]:
    images = training.data.load(training.numerics.device)
    model = job.recipe.build(images.shape, len(images.classes), torch.Generator())
    tensors = WeightStore(folder).load(job.key, training.numerics.device)
    tensors.pop(DIFFICULTY, None)
    codes = tensors.pop(CODES, None)
    model.load_state_dict(tensors)
    return training.numerics.place(model), codes


def _measure_chosen(
    cell: Cell, unlearned: nn.Module, original: nn.Module, problem: Problem, folder: Path | str
) -> _Values:
    """Return the numbers of the metrics that a cell names, as a record holds them; ``None`` where not defined.

    Beside the value of a metric that compares with a reference, or is to be close to a reference's value, stand

    * retrained: the number of the retrained model, the aim;
    * floor: |number of a second retrained model - number of the retrained model|, the noise of retraining;
    * oracle: the number of the model that was trained on the true labels, where data was corrupted.
    """
    # In bfloat16 confidences near 1 are equal, and attacks are blind.
    numerics = dataclasses.replace(cell.training.numerics, dtype="float32")
    models = {"unlearned": unlearned, "original": original}
    models |= {job.role: load_reference(job, folder) for job in cell.references}
    evaluated: dict[str, Evaluated] = {}
    for role, model in models.items():
        evaluated[role] = Evaluated(model, problem, numerics, evaluated)
    found: _Values = {}
    for name, metric in zip(cell.metrics, load_metrics(cell.metrics), strict=True):
        if metric.needs_population:
            continue
        numbers = {entry.name: {VALUE: entry.value} for entry in measure(metric, evaluated["unlearned"])}
        found |= numbers
        wanted = compared(metric, corrupted=len(problem.truth.corrupted) > 0)
        if wanted & (Compares.RETRAINED | Compares.ORACLE):
            values = _of_references(cell, name, metric, evaluated, folder)
            for number in numbers:
                found[number] |= _beside(values.get(number, {}), wanted)
    return found | (_of_population(cell, problem, folder) if cell.population else {})


def _of_population(cell: Cell, problem: Problem, folder: Path | str) -> _Values:
    """The numbers of the metrics that need populations; "retrained" is what two halves of the retrained ones give."""
    chosen = [metric for metric in load_metrics(cell.metrics) if isinstance(metric, PopulationMetric)]
    numbers = [number for metric in chosen for number in metric.numbers]
    if cell.method.oracle:  # the models of a population have no truth to read
        return {number: {VALUE: None} for number in numbers}
    training = cell.training
    settings = PopulationSettings(recipe=training.recipe, n_models=cell.population, seed=cell.seed)
    values = assess_population(
        cell.method, problem, settings, WeightStore(folder), numerics=training.numerics, workers=1
    ).values
    found: _Values = {}
    for number in numbers:
        entry = values[number]
        found[number] = {VALUE: entry.value, "low": entry.low, "high": entry.high, "retrained": entry.floor}
    return found


def _beside(values: Mapping[str, float | None], wanted: Compares) -> dict[str, float | None]:
    first, second = values.get(RETRAINED), values.get(SECOND)
    beside: dict[str, float | None] = {}
    if Compares.RETRAINED in wanted:
        beside["retrained"] = first
        beside["floor"] = None if first is None or second is None else abs(first - second)
    if Compares.ORACLE in wanted:
        beside["oracle"] = values.get(ORACLE)
    return beside


def _of_references(
    cell: Cell, name: str, metric: Metric, evaluated: Mapping[str, Evaluated], folder: Path | str
) -> _Values:
    """What a metric finds on the references; no method changes it, so it is measured once for a task, and stored."""
    weights = WeightStore(folder)
    key = fingerprint(
        "reference values", name, cell.task_key, [job.key for job in cell.references],
        cell.training.key if Compares.ORIGINAL in metric.compares else "", KEY_VERSION,
    )  # fmt: skip
    if weights.has(key):
        stored: _Values = json.loads(weights.metadata(key)["values"])
        return stored
    values: _Values = {}
    for job in cell.references:
        for entry in measure(metric, evaluated[job.role]):
            values.setdefault(entry.name, {})[job.role] = entry.value
    weights.save(key, {}, {"values": json.dumps(values), "metric": name})
    return values


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
