"""What a record of a sweep holds: the metrics of every one, and those that a grid names, with the models they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from expunge.errors import InvalidInput
from expunge.evaluation.references import ORACLE, RETRAINED, SECOND
from expunge.metrics.accuracies import Accuracies, PerClassAccuracy
from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined, defined, measure
from expunge.metrics.corruption import AttackSuccess, Healed, Utility, UtilityHealed
from expunge.metrics.fitted_attacks import EntropyAttack
from expunge.metrics.probes import ClassMeanProbe
from expunge.metrics.recalibrated import ENDING
from expunge.registry import METRICS
from expunge.tasks.base import Problem
from expunge.training.numerics import Numerics


def evaluate(
    model: nn.Module, problem: Problem, numerics: Numerics, *, augment: bool = False
) -> dict[str, Any]:
    """Return the record's metric fields for ``model``: fractions in [0, 1], ``None`` where not defined.

    ``metrics`` holds the same fields once more for a network with batch normalisation, with the ending
    "_recalibrated": with statistics of the retain set, see :class:`~expunge.metrics.recalibrated.Recalibrated`.

    Args:
        model: the model to be measured.
        problem: the task's data and truth.
        numerics: where to compute.
        augment: whether the model was trained on augmented inputs.
    """
    evaluated = Evaluated(model, problem, numerics, augment=augment)
    return {
        **_figures(evaluated),
        "per_class": PerClassAccuracy().classes(evaluated),
        "corruption_learned": evaluated.corruption_learned,
        "metrics": _of_forgetting(evaluated) | _recalibrated(evaluated),
    }


def _figures(evaluated: Evaluated) -> dict[str, float | None]:
    healed = Healed()
    return {
        "healed": defined(healed, evaluated),
        "healed_known": defined(healed.known, evaluated),
        "healed_unknown": defined(healed.unknown, evaluated),
        "utility": defined(Utility(), evaluated),
        "uxh": defined(UtilityHealed(), evaluated),
        "asr": defined(AttackSuccess(), evaluated),
    }


def _of_forgetting(evaluated: Evaluated) -> dict[str, float | None]:
    if not evaluated.has("forget"):
        return {}
    metrics: list[Metric] = [Accuracies(), EntropyAttack()]
    if evaluated.has("forget_test"):
        metrics.append(ClassMeanProbe())
    return {found.name: found.value for metric in metrics for found in measure(metric, evaluated)}


def _recalibrated(evaluated: Evaluated) -> dict[str, float | None]:
    try:
        again = evaluated.recalibrated
    except NotDefined:
        return {}
    found = _figures(again)
    if evaluated.has("forget"):
        found |= {entry.name: entry.value for entry in measure(Accuracies(), again)}
    return {name + ENDING: value for name, value in found.items() if value is not None}


def load_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics of these names, with their default settings.

    Raises:
        UnknownName: no such metric.
        InvalidInput: one that a sweep cannot measure.
    """
    made: list[Metric] = []
    for name in names:
        kind = METRICS.get(name)
        try:
            made.append(kind())
        except TypeError as error:
            raise InvalidInput(
                f"metric {name!r} cannot be made without settings ({error}), and a grid gives none; leave it out"
            ) from error
    return tuple(made)


def compared(metric: Metric, *, corrupted: bool) -> Compares:
    """Return the models without which the value of a metric says nothing.

    These are the models that it reads, and where the aim is a reference's value, that reference: the retrained
    model and, where data was corrupted, the oracle.
    """
    found = metric.compares
    if metric.needs_population:
        return found  # the retrained models are those of its own population
    if metric.better == "reference":
        found |= Compares.RETRAINED | (Compares.ORACLE if corrupted else Compares.NOTHING)
    return found


def references_of(metrics: Sequence[Metric], *, corrupted: bool) -> tuple[str, ...]:
    """Return the roles of the models to be trained for these metrics; the original is there anyway.

    A second retrained model comes with the first: how far two retrainings lie apart is the floor of every gap.
    """
    found = Compares.NOTHING
    for metric in metrics:
        found |= compared(metric, corrupted=corrupted)
    roles: tuple[str, ...] = (RETRAINED, SECOND) if Compares.RETRAINED in found else ()
    return (*roles, ORACLE) if Compares.ORACLE in found else roles
