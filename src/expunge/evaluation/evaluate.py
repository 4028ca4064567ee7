"""The metrics that every record of a sweep holds."""

from __future__ import annotations

from typing import Any

from torch import nn

from expunge.metrics.accuracies import Accuracies, PerClassAccuracy
from expunge.metrics.base import Evaluated, Metric, NotDefined, defined, measure
from expunge.metrics.corruption import AttackSuccess, Healed, Utility, UtilityHealed
from expunge.metrics.membership import EntropyAttack
from expunge.metrics.probes import ClassMeanProbe
from expunge.metrics.recalibrated import ENDING
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
