"""Accuracy on the parts of the data that an audit is about."""

from __future__ import annotations

from functools import partial

import torch

from expunge.metrics.base import Evaluated, Metric, NotDefined, Value, value_or_reason
from expunge.metrics.healed import Healed
from expunge.metrics.held_out import unseen_like_retain
from expunge.metrics.set_accuracy import accuracy


class ForgetAccuracy(Metric):
    """Share of D_f whose stored label is predicted.

    "forget_test_accuracy" is the accuracy on test examples of the classes that are forgotten whole. Of other forget
    sets "unseen_like_forget" is that on the test set, each class weighted as in D_f: what a model that never saw D_f
    would have on it.
    """

    name = "forget_accuracy"
    better = "reference"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share."""
        return accuracy(*evaluated.forget)

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The share, and the accuracy on unseen examples of forgotten classes, where there are any."""
        values = {self.name: Value(self(evaluated))}
        if evaluated.has("forget_test"):
            values["forget_test_accuracy"] = Value(evaluated.accuracy("forget_test"))
        elif (unseen := _unseen_of_the_same_classes(evaluated)) is not None:
            values["unseen_like_forget"] = Value(unseen)
        return values


def _unseen_of_the_same_classes(evaluated: Evaluated) -> float | None:
    """sum_c |D_f with label c| / |D_f| times the test accuracy of class c; ``None`` where one has no test example."""
    if not evaluated.has("test"):
        return None
    logits, labels = evaluated.test
    of = partial(torch.bincount, minlength=logits.shape[1])
    forgotten, tested = of(evaluated.forget[1].cpu()).double(), of(labels.cpu()).double()
    if bool(((forgotten > 0) & (tested == 0)).any()):
        return None
    right = of(labels[logits.argmax(1) == labels].cpu()).double() / tested.clamp(min=1)
    return float((forgotten * right).sum() / forgotten.sum())


class KeptAccuracy(Metric):
    """Accuracy on the test set, without the classes that are forgotten whole.

    "retain_accuracy" is the share of D_r whose stored label is predicted.
    """

    name = "test_accuracy"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy on the test set."""
        return accuracy(*unseen_like_retain(evaluated))

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """The accuracy on the test set, where there is one, and on the retain set."""
        tested = value_or_reason(lambda: self(evaluated))
        return {self.name: tested, "retain_accuracy": Value(accuracy(*evaluated.retain))}


class HealedWhereKnown(Healed):
    """Examples with a wrong label that are answered by the true one, as far as true labels are known."""

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """All, and those in and outside the forget set; not defined without true labels."""
        if not len(evaluated.truth.corrupted):
            raise NotDefined("no true label is given that differs from the stored one")
        return super().values(evaluated)
