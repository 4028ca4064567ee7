"""Accuracy gaps: how far a model's UA, RA, TA and MIA are from the retrained model's."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from expunge.metrics.base import Compares, Evaluated, Metric, Value
from expunge.metrics.set_accuracy import set_accuracies
from expunge.metrics.svc_efficacy import SVCEfficacy


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

    The labels of D_f and D_r are the stored ones; D_t leaves out the test images of a forgotten class or sub-class.
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

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the average gap; not defined where one of the four readings is not."""
        return statistics.fmean(self.gaps(evaluated))

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The average gap, and each one as that name with "_ua", "_ra", "_ta", "_mia"."""
        found = self.gaps(evaluated)
        each = {f"{self.name}_{name}": Value(gap) for name, gap in found._asdict().items()}
        return {self.name: Value(statistics.fmean(found)), **each}

    def gaps(self, evaluated: Evaluated) -> Readings:
        """Return the four gaps to the retrained model."""
        return gaps(self.readings(evaluated), self.readings(evaluated.retrained))

    def readings(self, evaluated: Evaluated) -> Readings:
        """Return UA, RA, TA and MIA of one model."""
        found = set_accuracies(evaluated)
        return Readings(1 - found.forget, found.retain, found.test, self.attack(evaluated))
