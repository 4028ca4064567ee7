"""Tug of war: closeness to the retrained model on the forget, the retain and the test set at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric
from expunge.metrics.set_accuracy import set_accuracies
from expunge.metrics.svc_efficacy import SVCEfficacy


def tug_of_war(unlearned: Sequence[float], retrained: Sequence[float]) -> float:
    """Return prod_S (1 - |v(theta_u, S) - v(theta_r, S)|), in [0, 1].

    Args:
        unlearned: v(theta_u, S), fractions in [0, 1].
        retrained: v(theta_r, S), for the same sets.

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
