"""Kullback-Leibler divergence from the retrained model."""

from __future__ import annotations

from torch import Tensor

from expunge.metrics.base import Compares, Evaluated, Metric, Value
from expunge.metrics.distribution import divergence, paired_log_probabilities
from expunge.metrics.undefined import undefined_where_invalid


def kl_divergence(reference: Tensor, logits: Tensor) -> float:
    """Mean over the examples of KL(p_r || p_u), in nats; 0 or more, without an upper bound.

    Symbols: p_r = softmax(``reference``), p_u = softmax(``logits``), logits (N, C).

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite.
    """
    log_r, log_u = paired_log_probabilities(reference, logits)
    return float(divergence(log_r, log_u).mean())


class KLToRetrained(Metric):
    """KL(p_r || p_u), in nats, of the unlearned from the retrained model, averaged over D_f and over D_r.

    The value is that on D_f; "kl_to_retrained_retain" is that on D_r. 0 is the aim.

    Source: Huang et al. (SFRon), NeurIPS 2024.
    """

    name = "kl_to_retrained"
    unit = "nats"
    better = "lower"
    compares = Compares.RETRAINED
    source = "Huang et al., NeurIPS 2024"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the mean over the forget set."""
        with undefined_where_invalid():
            return kl_divergence(evaluated.retrained.forget.logits, evaluated.forget.logits)

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The means over the forget and over the retain set."""
        forget = Value(self(evaluated))
        with undefined_where_invalid():
            retain = kl_divergence(evaluated.retrained.retain.logits, evaluated.retain.logits)
        return {self.name: forget, f"{self.name}_retain": Value(retain)}
