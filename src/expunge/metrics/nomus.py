"""NoMUS: test accuracy and how little a membership attack finds, weighed together."""

from __future__ import annotations

from dataclasses import dataclass, field

from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, Metric
from expunge.metrics.held_out import unseen_like_retain
from expunge.metrics.logistic_attack import LogisticAttack
from expunge.metrics.set_accuracy import accuracy


def indiscernibility(attack_accuracy: float) -> float:
    """Return 1 - |MIA - 1/2| / (1/2), in [0, 1]: 1 where an attack guesses.

    Args:
        attack_accuracy: MIA, of an attack on two groups of one size, in [0, 1].

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
