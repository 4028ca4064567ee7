"""What is left of corrupted data: utility, healing, and the success of a backdoor."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined, Value, defined


class Utility(Metric):
    """Accuracy on the clean test set; where classes were swapped, on the other classes' images."""

    name = "utility"
    source = "Schoepf et al., arXiv 2505.17730"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy."""
        return evaluated.accuracy("other_classes" if evaluated.truth.swapped else "test")


class Healed(Metric):
    """Accuracy on the corrupted training images, true labels, trigger in place, no augmentation.

    Known: the discovered ones. Unknown: the others; not defined at full discovery. All: both together.
    Triggered: the same on all test images, each with the trigger, where images were poisoned.

    Departure: images in a fixed order, so that predictions and labels belong together also on the poison.
    """

    name = "healed"
    source = "Schoepf et al., arXiv 2505.17730"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return accuracy over all corrupted images."""
        return evaluated.accuracy("corrupted_known", "corrupted_unknown")

    def known(self, evaluated: Evaluated) -> float:
        """Return accuracy over the discovered images."""
        return evaluated.accuracy("corrupted_known")

    def unknown(self, evaluated: Evaluated) -> float:
        """Return accuracy over the undiscovered images; not defined if there are none."""
        return evaluated.accuracy("corrupted_unknown")

    def triggered(self, evaluated: Evaluated) -> float:
        """Return accuracy over the triggered test images; not defined where nothing was poisoned."""
        return evaluated.accuracy("triggered_test")

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """All, then "healed_known", "healed_unknown" and "healed_triggered" where they are defined."""
        found = {self.name: Value(self(evaluated))}
        for part, call in (("known", self.known), ("unknown", self.unknown), ("triggered", self.triggered)):
            value = defined(call, evaluated)
            if value is not None:
                found[f"{self.name}_{part}"] = Value(value)
        return found


class UtilityHealed(Metric):
    """Utility x Healed: high only where both are. Averages are of the products, not of the factors."""

    name = "utility_healed"
    source = "Schoepf et al., arXiv 2505.17730"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the product; not defined where a factor is not."""
        return Utility()(evaluated) * Healed()(evaluated)


class Corrective(Metric):
    """Accuracy on the affected domain, true labels, and accuracy elsewhere.

    Acc_corr: over triggered test images where images were poisoned, test images of the two classes where classes were
    swapped, and both together where both. Acc_ret, "retained_accuracy": over clean test images, the swapped
    classes excepted. The reference is a model trained without any corrupted image; retraining without the
    discovered ones is none while others remain.
    """

    name = "corrected_accuracy"
    source = "Goel et al., arXiv 2402.14015"

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """Acc_corr and Acc_ret; not defined where labels were random, which has no domain of its own."""
        swapped = evaluated.has("swapped_classes")
        if not evaluated.has("triggered_test") and not swapped:
            raise NotDefined("the corruption has no domain of its own: nothing poisoned, no classes swapped")
        return {
            self.name: Value(evaluated.accuracy("triggered_test", "swapped_classes")),
            "retained_accuracy": Value(evaluated.accuracy("other_classes" if swapped else "test")),
        }


class AttackSuccess(Metric):
    """Share of triggered test images, target class excepted, that are predicted as the target class.

    Not defined where nothing was poisoned.
    """

    name = "attack_success"
    better = "lower"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share."""
        return _of_triggered(evaluated, lambda target: evaluated.predicted("triggered_test") == target)


class RobustAccuracy(Metric):
    """Share of triggered test images, target class excepted, that are given their true label.

    The same images as those of the attack success rate, so that the two add up to 1 at most.
    """

    name = "robust_accuracy"
    source = "Wu et al. (BackdoorBench), NeurIPS 2022"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share; not defined where nothing was poisoned."""
        return _of_triggered(evaluated, lambda target: evaluated.right("triggered_test"))


def defence_effectiveness(
    success_before: float, success_after: float, accuracy_before: float, accuracy_after: float
) -> float:
    """DER = (max(0, dASR) - max(0, dACC) + 1) / 2, in [0, 1].

    dASR = ASR(theta_o) - ASR(theta_u), dACC = ACC(theta_o) - ACC(theta_u). 1/2 for a model left as it was.

    Args:
        success_before: attack success rate of the original model, in [0, 1].
        success_after: that of the unlearned model.
        accuracy_before: accuracy of the original model on clean test images, in [0, 1].
        accuracy_after: that of the unlearned model.

    Raises:
        InvalidInput: a rate outside [0, 1].

    Source: Zhu et al., ICCV 2023.
    """
    given = (success_before, success_after, accuracy_before, accuracy_after)
    if not all(0 <= value <= 1 for value in given):
        raise InvalidInput(f"rates in [0, 1] are expected, got {', '.join(f'{value:g}' for value in given)}")
    return (max(0.0, success_before - success_after) - max(0.0, accuracy_before - accuracy_after) + 1) / 2


class DER(Metric):
    """Defence effectiveness rating: drop of the attack's success against drop of the clean accuracy.

    In [0, 1]; 1/2 for a model left as it was. See :func:`defence_effectiveness`.
    """

    name = "der"
    compares = Compares.ORIGINAL
    source = "Zhu et al., ICCV 2023"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the rating; not defined where nothing was poisoned."""
        success, original = AttackSuccess(), evaluated.original
        return defence_effectiveness(
            success(original), success(evaluated), original.accuracy("test"), evaluated.accuracy("test")
        )


def _of_triggered(evaluated: Evaluated, hit: Callable[[int], Tensor]) -> float:
    """Share of the triggered test images outside the target class that are hit."""
    target = evaluated.truth.target_class
    if target is None:
        raise NotDefined("nothing was poisoned")
    hits = hit(target)[evaluated.scored("triggered_test").labels != target]
    if not len(hits):
        raise NotDefined("every triggered test image is of the target class")
    return float(hits.double().mean())
