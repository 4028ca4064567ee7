"""Composites: several accuracies and an attack weighed together, beside the retrained or the original model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import accuracy, set_accuracies, unseen_like_retain
from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined, Value, value_or_reason
from expunge.metrics.fitted_attacks import LogisticAttack, SVCEfficacy


def tug_of_war(unlearned: Sequence[float], retrained: Sequence[float]) -> float:
    """Return prod_S (1 - |v(theta_u, S) - v(theta_r, S)|), in [0, 1], of fractions v for the same sets S.

    Raises:
        InvalidInput: sequences of different length, or a value outside [0, 1].
    """
    values = [*unlearned, *retrained]
    if len(unlearned) != len(retrained) or not all(0 <= value <= 1 for value in values):
        raise InvalidInput(
            "two sequences of as many fractions in [0, 1] are expected, got "
            f"{list(unlearned)} and {list(retrained)}"
        )
    return math.prod(1 - abs(mine - aim) for mine, aim in zip(unlearned, retrained, strict=True))


class ToW(Metric):
    """Tug of war: prod over D_f, D_r, D_t of 1 - |a(theta_u, S) - a(theta_r, S)|, in [0, 1].

    1 where all three accuracies are the retrained model's. D_t leaves out the test images of a forgotten class or
    sub-class.
    """

    name = "tow"
    compares = Compares.RETRAINED
    source = "Zhao et al., NeurIPS 2024, arXiv 2406.01257"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the product."""
        return tug_of_war(set_accuracies(evaluated), set_accuracies(evaluated.retrained))


@dataclass(frozen=True, kw_only=True)
class ToWMIA(Metric):
    """Tug of war with the confidence attack in place of the accuracy on the forget set, in [0, 1].

    (1 - |MIA(theta_u) - MIA(theta_r)|) times the factors of D_r and D_t.

    Args:
        attack: the attack behind MIA.
    """

    name = "tow_mia"
    compares = Compares.RETRAINED
    source = "Zhao et al., NeurIPS 2024, arXiv 2406.01257"

    attack: SVCEfficacy = field(default_factory=SVCEfficacy)

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the product; not defined where the attack is not."""
        return tug_of_war(self._readings(evaluated), self._readings(evaluated.retrained))

    def _readings(self, evaluated: Evaluated) -> tuple[float, float, float]:
        found = set_accuracies(evaluated)
        return self.attack(evaluated), found.retain, found.test


class Readings(NamedTuple):
    """The four numbers of published tables, fractions in [0, 1].

    Attributes:
        ua: unlearning accuracy, 1 - a(theta, D_f).
        ra: remaining accuracy, a(theta, D_r).
        ta: test accuracy, a(theta, D_t).
        mia: efficacy of the confidence attack.
    """

    ua: float
    ra: float
    ta: float
    mia: float


def gaps(unlearned: Readings, retrained: Readings) -> Readings:
    """Return |value(theta_u) - value(theta_r)| of each reading."""
    return Readings(*(abs(mine - aim) for mine, aim in zip(unlearned, retrained, strict=True)))


@dataclass(frozen=True, kw_only=True)
class AccuracyGaps(Metric):
    """Average gap: mean over UA, RA, TA and MIA of |value(theta_u) - value(theta_r)|, in [0, 1].

    The labels of D_f and D_r are the given ones; D_t leaves out the test images of a forgotten class or sub-class.
    Two retrained models do not have a gap of 0 to each other: measure one of another seed to see how much of
    a gap is noise.

    Args:
        attack: the attack behind MIA.
    """

    name = "accuracy_gaps"
    better = "lower"
    compares = Compares.RETRAINED
    source = "Jia et al., NeurIPS 2023, arXiv 2304.04934; Fan et al., ICLR 2024, arXiv 2310.12508"

    attack: SVCEfficacy = field(default_factory=SVCEfficacy)

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The average gap, and each one as that name with "_ua", "_ra", "_ta", "_mia"; not defined where one is not."""
        found = gaps(self.readings(evaluated), self.readings(evaluated.retrained))
        each = {f"{self.name}_{name}": Value(gap) for name, gap in found._asdict().items()}
        return {self.name: Value(statistics.fmean(found)), **each}

    def readings(self, evaluated: Evaluated) -> Readings:
        """Return UA, RA, TA and MIA of one model."""
        found = set_accuracies(evaluated)
        return Readings(1 - found.forget, found.retain, found.test, self.attack(evaluated))


def retention(unlearned: float, retrained: float) -> float:
    """Return a(theta_u, S) / a(theta_r, S), at least 0.

    Raises:
        InvalidInput: the retrained model's accuracy is 0.
    """
    if retrained == 0:
        raise InvalidInput("the retrained model has accuracy 0 there, which nothing can be a share of")
    return unlearned / retrained


class Retention(Metric):
    """Retention ratios a(theta_u, S) / a(theta_r, S) on D_r (RR), D_f (FR) and D_t (TR).

    The value is RR. 1 is what the retrained model has; FR above 1 is a forget set that is still known, below 1 one
    that is over-forgotten. FR is not defined where the retrained model gets no example of D_f right, as for a
    forgotten class.
    """

    name = "retention"
    unit = "ratio"
    better = "reference"
    compares = Compares.RETRAINED
    source = "Cadet et al., arXiv 2410.01276 (Deep Unlearn)"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return RR."""
        return self.on(evaluated, "retain")

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """RR, and FR and TR as that name with "_forget" and "_test"."""
        found: dict[str, Value | NotDefined] = {self.name: Value(self(evaluated))}
        for part in ("forget", "test"):
            found[f"{self.name}_{part}"] = value_or_reason(partial(self.on, evaluated, part))
        return found

    def on(self, evaluated: Evaluated, part: str) -> float:
        """Return the ratio on "forget", "retain" or "test"; not defined where the retrained model's accuracy is 0."""
        mine, aim = set_accuracies(evaluated)._asdict(), set_accuracies(evaluated.retrained)._asdict()
        return retention(mine[part], aim[part])


def adaptive_unlearning_score(
    original_test: float, test: float, forget: float, *, class_removed: bool
) -> float:
    """Return AUS = (1 - (a(theta_o, D_t) - a(theta_u, D_t))) / (1 + Delta).

    Delta = a(theta_u, D_f) where classes are removed, |a(theta_u, D_t) - a(theta_u, D_f)| elsewhere.

    Args:
        original_test: a(theta_o, D_t), in [0, 1].
        test: a(theta_u, D_t).
        forget: a(theta_u, D_f).
        class_removed: whether D_f is all of some classes.
    """
    distance = forget if class_removed else abs(test - forget)
    return (1 - (original_test - test)) / (1 + distance)


class AUS(Metric):
    """Adaptive unlearning score; 1 where no test accuracy is lost and the forget set is as it should be.

    AUS = (1 - (a(theta_o, D_t) - a(theta_u, D_t))) / (1 + Delta). Where D_f is all of some classes Delta =
    a(theta_u, D_f) and D_t leaves their test images out; elsewhere Delta = |a(theta_u, D_t) - a(theta_u, D_f)|.
    Above 1 where the model has gained test accuracy. No retrained model is read, so that a forget set that
    generalises better or worse than the test set is held against the model.
    """

    name = "aus"
    unit = "score"
    compares = Compares.ORIGINAL
    source = "Cotogni et al., arXiv 2312.02052 (DUCK)"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the score."""
        mine = set_accuracies(evaluated)
        return adaptive_unlearning_score(
            set_accuracies(evaluated.original).test,
            mine.test,
            mine.forget,
            class_removed=bool(evaluated.problem.split.forget_classes),
        )


def indiscernibility(attack_accuracy: float) -> float:
    """Return 1 - |MIA - 1/2| / (1/2), in [0, 1]: 1 where an attack on two groups of one size guesses.

    Raises:
        InvalidInput: outside [0, 1].
    """
    if not 0 <= attack_accuracy <= 1:
        raise InvalidInput(f"the accuracy of an attack must lie in [0, 1], got {attack_accuracy:g}")
    return 1 - abs(attack_accuracy - 0.5) / 0.5


@dataclass(frozen=True, kw_only=True)
class NoMUS(Metric):
    """Normalised machine unlearning score, in [0, 1].

    lambda a(theta_u, D_t) + (1 - lambda) (1 - 2 |MIA - 1/2|), with MIA the accuracy of :class:`LogisticAttack`; D_t
    leaves out the test images of a forgotten class or sub-class. It takes 1/2 for the aim of the attack,
    which a retrained model need not attain: look at its score too.

    Args:
        utility_weight: lambda, in [0, 1].
        attack: the attack behind MIA.
    """

    name = "nomus"
    source = "Choi and Na, arXiv 2311.02240 (MUFAC)"

    utility_weight: float = 0.5
    attack: LogisticAttack = field(default_factory=LogisticAttack)

    def __post_init__(self) -> None:
        if not 0 <= self.utility_weight <= 1:
            raise InvalidInput(f"utility_weight must lie in [0, 1], got {self.utility_weight:g}")

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the score; not defined where the attack is not."""
        utility = accuracy(*unseen_like_retain(evaluated))
        hidden = indiscernibility(self.attack(evaluated))
        return self.utility_weight * utility + (1 - self.utility_weight) * hidden
