"""The models that metrics compare with: trained once for a task and seed, and measured once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from expunge.evaluation.evaluate import compared, load_metrics
from expunge.evaluation.references import ORACLE, RETRAINED, SECOND, train_reference
from expunge.fingerprint import fingerprint
from expunge.metrics.base import Compares, Evaluated, Metric, measure
from expunge.metrics.of_populations import PopulationMetric
from expunge.populations.assess import assess_population
from expunge.populations.population import PopulationSettings
from expunge.seeding import generator
from expunge.store.record import VALUE
from expunge.store.weights import WeightStore
from expunge.sweep.plan import KEY_VERSION, Cell, Reference, build_problem
from expunge.tasks.base import Problem

Values = dict[str, dict[str, float | None]]
"""Name of a number -> role of a model, or what stands beside it -> value, ``None`` where it is not defined."""


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
    numerics = job.training.numerics
    problem = build_problem(job.training, job.task, folder)
    examples = problem.split.retain
    if job.role == ORACLE:
        examples = problem.split.train.relabel(problem.truth.true_labels)
    model = job.recipe.build(problem.shape, problem.n_classes, generator(job.seed, "initialisation"))
    seconds = train_reference(model, examples, job.recipe, job.seed, numerics, job.role)
    weights.save(job.key, model.state_dict(), {"role": job.role, "seconds": f"{seconds:.3f}"})


def load_reference(job: Reference, folder: Path | str) -> nn.Module:
    """Return a stored reference, in evaluation mode; raises StoreError where it cannot be read."""
    images = job.training.data.load(job.training.numerics.device)
    model = job.recipe.build(images.shape, len(images.classes), torch.Generator())
    model.load_state_dict(WeightStore(folder).load(job.key, job.training.numerics.device))
    return job.training.numerics.place(model).eval()


def measure_chosen(
    cell: Cell, unlearned: nn.Module, original: nn.Module, problem: Problem, folder: Path | str
) -> Values:
    """Return the numbers of the metrics that a cell names, as a record holds them; ``None`` where not defined.

    Beside the value of a metric that compares with a reference, or is to be close to a reference's value, stand

    * retrained: the number of the retrained model, the aim;
    * floor: |number of a second retrained model - number of the retrained model|, the noise of retraining;
    * oracle: the number of the model that was trained on the true labels, where data was corrupted.

    What is measured on references does not depend on the method: it is stored, and measured once for a task.

    Raises:
        InvalidInput: a metric cannot use this data or model.
    """
    # In bfloat16 confidences near 1 are equal, and attacks are blind.
    numerics = dataclasses.replace(cell.training.numerics, dtype="float32")
    models = {"unlearned": unlearned, "original": original}
    models |= {job.role: load_reference(job, folder) for job in cell.references}
    evaluated: dict[str, Evaluated] = {}
    for role, model in models.items():
        evaluated[role] = Evaluated(model, problem, numerics, evaluated)
    found: Values = {}
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


def _of_population(cell: Cell, problem: Problem, folder: Path | str) -> Values:
    """The numbers of the metrics that need populations; "retrained" is what two halves of the retrained ones give."""
    numbers = [
        number
        for metric in load_metrics(cell.metrics)
        if isinstance(metric, PopulationMetric)
        for number in metric.numbers
    ]
    if cell.method.oracle:  # the models of a population have no truth to read
        return {number: {VALUE: None} for number in numbers}
    training = cell.training
    settings = PopulationSettings(recipe=training.recipe, n_models=cell.population, seed=cell.seed)
    values = assess_population(
        cell.method, problem, settings, WeightStore(folder), numerics=training.numerics, workers=1
    ).values
    found = {number: values[number] for number in numbers}
    return {
        number: {VALUE: of.value, "low": of.low, "high": of.high, "retrained": of.floor}
        for number, of in found.items()
    }


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
) -> Values:
    """Measure the references, or read what an earlier cell of the task has stored."""
    weights = WeightStore(folder)
    key = fingerprint(
        "reference values", name, cell.task_key, [job.key for job in cell.references],
        cell.training.key if Compares.ORIGINAL in metric.compares else "", KEY_VERSION,
    )  # fmt: skip
    if weights.has(key):
        stored: Values = json.loads(weights.metadata(key)["values"])
        return stored
    values: Values = {}
    for job in cell.references:
        for entry in measure(metric, evaluated[job.role]):
            values.setdefault(entry.name, {})[job.role] = entry.value
    weights.save(key, {}, {"values": json.dumps(values), "metric": name})
    return values
