"""Distance between the predictions of two models."""

from __future__ import annotations

from torch import Tensor

from expunge.metrics.base import Compares, Evaluated, Metric, Value
from expunge.metrics.distribution import paired_log_probabilities
from expunge.metrics.undefined import undefined_where_invalid


def activation_distance(first: Tensor, second: Tensor) -> float:
    """Mean over the examples of ||softmax(a_i) - softmax(b_i)||_2, in [0, sqrt 2].

    Symbols: a -> ``first``, b -> ``second``, logits (N, C).

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite.
    """
    log_p, log_q = paired_log_probabilities(first, second)
    return float((log_p.exp() - log_q.exp()).norm(dim=1).mean())


class ActivationDistance(Metric):
    """Mean L2 distance between the probabilities of the unlearned and the retrained model on D_f.

    A second value is the same on D_r. 0 is the aim; compare with the distance between two retrainings.

    Source: Golatkar et al., CVPR 2021; in this form Chundawat et al., AAAI 2023.
    """

    name = "activation_distance"
    unit = "probability"
    better = "lower"
    compares = Compares.RETRAINED
    source = "Golatkar et al., CVPR 2021"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the distance on the forget set."""
        with undefined_where_invalid():
            return activation_distance(evaluated.forget.logits, evaluated.retrained.forget.logits)

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The distance on the forget set and, "activation_distance_retain", on the retain set."""
        forget = Value(self(evaluated))
        with undefined_where_invalid():
            retain = activation_distance(evaluated.retain.logits, evaluated.retrained.retain.logits)
        return {self.name: forget, f"{self.name}_retain": Value(retain)}
