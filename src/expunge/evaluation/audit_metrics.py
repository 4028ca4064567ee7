"""What an audit measures, and which layers of a model it looks into."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.evaluation.audit_only import ForgetAccuracy, HealedWhereKnown, KeptAccuracy, Relearned
from expunge.metrics.attacks import ConfidenceAttack, EntropyAttackAUC, ModifiedEntropyAttack
from expunge.metrics.base import Metric
from expunge.metrics.calibration import ECE, NLL, Brier
from expunge.metrics.class_damage import ClassDamage
from expunge.metrics.compared_predictions import (
    RFJSD,
    ZRF,
    ActivationDistance,
    Completeness,
    JSDivergence,
    KLToRetrained,
)
from expunge.metrics.composites import AccuracyGaps, Retention, ToW
from expunge.metrics.fitted_attacks import EntropyAttack, LogisticAttack, SVCEfficacy
from expunge.metrics.idi import IDI
from expunge.metrics.probes import ClassMeanProbe, LinearProbe
from expunge.metrics.recalibrated import Recalibrated
from expunge.metrics.residual_knowledge import ResidualKnowledge
from expunge.metrics.weight_distance import WeightDistance
from expunge.tasks.base import Problem
from expunge.training.batchnorm import keeps_statistics
from expunge.training.features import layer_names, layers_with_rows


def audit_metrics(
    model: nn.Module, problem: Problem, *, quick: bool = False, wrong: bool = False
) -> tuple[Metric, ...]:
    """Return the metrics of an audit, in the order of the table.

    Args:
        model: whose layers are probed.
        problem: what is measured on.
        quick: leave out what trains or fits at length: relearning, IDI, the support vector attacks, noisy
            neighbours, and probes of other layers than the last.
        wrong: the labels of the forget set are said to be wrong, known or not.
    """
    example = next(problem.split.train.batches(2)).x
    layers = probed_layers(model, example, problem.n_classes, most=1 if quick else 3)
    chosen: list[Metric] = [ForgetAccuracy(), KeptAccuracy()]
    if wrong or len(problem.truth.corrupted):
        chosen.append(HealedWhereKnown())
    if keeps_statistics(model):
        chosen.append(Recalibrated(*chosen))
    chosen += [
        ClassDamage(),
        ConfidenceAttack(),
        EntropyAttackAUC(),
        ModifiedEntropyAttack(),
        LogisticAttack(),
        EntropyAttack(),
        ClassMeanProbe(),
        LinearProbe(layers=layers),
        ToW(),
        Retention(),
        ActivationDistance(),
        JSDivergence(),
        KLToRetrained(),
        Completeness(),
        RFJSD(),
        ZRF(),
        WeightDistance(),
        ECE(),
        NLL(),
        Brier(),
    ]
    if quick:
        return tuple(chosen)
    chosen += [Relearned(), IDI(layers=layers), SVCEfficacy(), AccuracyGaps()]
    # Noise on token ids means nothing.
    if example.is_floating_point():
        chosen.append(ResidualKnowledge())
    return tuple(chosen)


def probed_layers(model: nn.Module, x: Tensor, n_classes: int, most: int) -> tuple[str, ...]:
    """Return up to ``most`` layers before the head, evenly spaced, the last one among them; none without a head.

    A part that puts out no tensor, as the body of a model of ``transformers`` does, is taken apart.

    Args:
        model: to be looked into.
        x: a batch of its inputs.
        n_classes: its outputs.
        most: number of layers, at least 1.
    """
    try:
        names = layer_names(model, n_classes)
    except InvalidInput:
        return ()
    usable = layers_with_rows(model, x)
    modules = dict(model.named_modules())
    found = [inner for name in names for inner in _taken_apart(name, modules[name], usable)]
    count = min(most, len(found))
    return tuple(found[(number + 1) * len(found) // count - 1] for number in range(count))


def _taken_apart(name: str, module: nn.Module, usable: set[str]) -> list[str]:
    if name in usable:
        return [name]
    return [
        inner
        for child, part in module.named_children()
        if any(True for _ in part.parameters())
        for inner in _taken_apart(f"{name}.{child}", part, usable)
    ]
