"""Defence effectiveness rating: what an unlearning took from a backdoor against what it cost in accuracy."""

from __future__ import annotations

from expunge.errors import InvalidInput
from expunge.metrics.attack_success import AttackSuccess
from expunge.metrics.base import Compares, Evaluated, Metric


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

    Source: Zhu et al., ICCV 2023.
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
