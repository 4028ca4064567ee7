"""What an audit measures."""

from __future__ import annotations

from torch import nn

from expunge.evaluation.part_accuracies import ForgetAccuracy, HealedWhereKnown, KeptAccuracy
from expunge.evaluation.probed_layers import probed_layers
from expunge.evaluation.relearned import Relearned
from expunge.metrics.accuracy_gaps import AccuracyGaps
from expunge.metrics.activation_distance import ActivationDistance
from expunge.metrics.attacks import ConfidenceAttack, EntropyAttackAUC, ModifiedEntropyAttack
from expunge.metrics.base import Metric
from expunge.metrics.calibration import ECE, NLL, Brier
from expunge.metrics.class_damage import ClassDamage
from expunge.metrics.class_mean_probe import ClassMeanProbe
from expunge.metrics.completeness import Completeness
from expunge.metrics.idi import IDI
from expunge.metrics.js_divergence import JSDivergence
from expunge.metrics.kl_to_retrained import KLToRetrained
from expunge.metrics.linear_probe import LinearProbe
from expunge.metrics.logistic_attack import LogisticAttack
from expunge.metrics.membership import EntropyAttack
from expunge.metrics.recalibrated import Recalibrated
from expunge.metrics.residual_knowledge import ResidualKnowledge
from expunge.metrics.retention import Retention
from expunge.metrics.rf_jsd import RFJSD
from expunge.metrics.svc_efficacy import SVCEfficacy
from expunge.metrics.tow import ToW
from expunge.metrics.weight_distance import WeightDistance
from expunge.metrics.zrf import ZRF
from expunge.tasks.base import Problem
from expunge.training.batchnorm import keeps_statistics


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
