"""What an audit measures: metrics of its own, all that it makes, and the layers of a model that it looks into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import accuracy, unseen_like_retain
from expunge.metrics.attacks import ConfidenceAttack, EntropyAttackAUC, ModifiedEntropyAttack
from expunge.metrics.base import Evaluated, Metric, NotDefined, Value, value_or_reason
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
from expunge.metrics.corruption import Healed
from expunge.metrics.fitted_attacks import EntropyAttack, LogisticAttack, SVCEfficacy
from expunge.metrics.idi import IDI
from expunge.metrics.probes import ClassMeanProbe, LinearProbe
from expunge.metrics.recalibrated import Recalibrated
from expunge.metrics.relearn import Relearning, RelearnTime
from expunge.metrics.residual_knowledge import ResidualKnowledge
from expunge.metrics.weight_distance import WeightDistance
from expunge.tasks.base import Problem
from expunge.training.batchnorm import keeps_statistics
from expunge.training.features import layer_names, layers_with_rows
from expunge.training.recipe import Optimiser


class ForgetAccuracy(Metric):
    """Share of D_f whose given label is predicted.

    "forget_test_accuracy" is the accuracy on test examples of the classes that are forgotten whole. Of other forget
    sets "unseen_like_forget" is that on the test set, each class weighted as in D_f: what a model that never saw D_f
    would have on it. "unseen_given_by_mistake" is the share of test examples of other classes that are given the labels
    of D_f, weighted alike: what a model that never saw D_f would have on it if its labels are wrong.
    """

    name = "forget_accuracy"
    better = "reference"

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The share, and the accuracy on unseen examples of forgotten classes, where there are any."""
        values = {self.name: Value(accuracy(*evaluated.forget))}
        if evaluated.has("forget_test"):
            values["forget_test_accuracy"] = Value(evaluated.accuracy("forget_test"))
        elif evaluated.has("test"):
            values |= _of_unseen(*evaluated.test, evaluated.forget[1])
        return values


def _of_unseen(logits: Tensor, labels: Tensor, forgotten: Tensor) -> dict[str, Value]:
    """sum_c |D_f with label c| / |D_f| times the share of test examples that are given c: of class c, and of others.

    Each only where every c has such test examples.
    """
    of = partial(torch.bincount, minlength=logits.shape[1])
    given, labels = logits.argmax(1).cpu(), labels.cpu()
    weights, tested = of(forgotten.cpu()).double(), of(labels).double()
    right, all_given = of(labels[given == labels]).double(), of(given).double()
    parts = {
        "unseen_like_forget": (right, tested),
        "unseen_given_by_mistake": (all_given - right, tested.sum() - tested),
    }
    return {
        name: Value(float((weights * counts / out_of.clamp(min=1)).sum() / weights.sum()))
        for name, (counts, out_of) in parts.items()
        if not bool(((weights > 0) & (out_of == 0)).any())
    }


class KeptAccuracy(Metric):
    """Accuracy on the test set, without the classes that are forgotten whole.

    "retain_accuracy" is the share of D_r whose given label is predicted.
    """

    name = "test_accuracy"

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """The accuracy on the test set, where there is one, and on the retain set."""
        tested = value_or_reason(lambda: accuracy(*unseen_like_retain(evaluated)))
        return {self.name: tested, "retain_accuracy": Value(accuracy(*evaluated.retain))}


class HealedWhereKnown(Healed):
    """Examples with a wrong label that are answered by the true one, as far as true labels are known."""

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """All, and those in and outside the forget set; not defined without true labels."""
        if not len(evaluated.truth.corrupted):
            raise NotDefined("no true label is given that differs from the given one")
        return super().values(evaluated)


SLOW = Relearning(optimiser=Optimiser(lr=0.003, momentum=0.0, weight_decay=0.0), max_steps=200)
"""Plain descent in small steps: with momentum a forgotten class is back after five, which resolves nothing."""
REACHED = "relearn_reached"
"""Name of the accuracy, in [0, 1], that was reached."""


@dataclass(frozen=True, kw_only=True)
class Relearned(RelearnTime):
    """Relearn time by plain descent in small steps, with its cap in view.

    "relearn_reached" is the accuracy at which the training stopped: at the aim, or at the cap, where the number of
    steps is not defined. Settings and source: :class:`RelearnTime`.
    """

    relearning: Relearning = SLOW

    @property
    def cap(self) -> int:
        """The number of steps at which the training ends at the latest."""
        return self.relearning.max_steps

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """The steps, and the accuracy reached."""
        target = self.target(evaluated)
        curve = self.curve(evaluated, until=target)
        steps = curve.reached(target)
        reason = f"an accuracy of {target:.3f} is not regained within {self.cap} steps"
        return {
            self.name: NotDefined(reason) if steps is None else Value(steps),
            REACHED: Value(curve.accuracies[-1]),
        }


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
