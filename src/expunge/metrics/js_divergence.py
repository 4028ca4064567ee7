"""Jensen-Shannon divergence between the predictions of two models."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expunge.metrics.base import Compares, Evaluated, Metric
from expunge.metrics.distribution import divergence, paired_log_probabilities
from expunge.metrics.undefined import undefined_where_invalid


def js_divergence(first: Tensor, second: Tensor, *, legacy: bool = False) -> float:
    """Mean over the examples of JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2, in nats.

    The sum runs over the classes, the mean over the examples, so the value lies in [0, log 2] for any
    number of classes.

    Symbols: p = softmax(``first``), q = softmax(``second``), logits (N, C).

    Args:
        first: logits of one model.
        second: logits of the other on the same examples.
        legacy: compute what the code of Chundawat et al. (AAAI 2023) and its descendants print: the
            arguments reversed, (KL(m || p) + KL(m || q)) / 2, and the mean taken over examples **and
            classes**. It shrinks with C and has no upper bound; only for comparing with published tables.

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite.
    """
    log_p, log_q = paired_log_probabilities(first, second)
    return float(_js(log_p, log_q, legacy).mean())


def js_of_log_probabilities(log_p: Tensor, log_q: Tensor) -> Tensor:
    """JS(p, q) in nats by row, of log probabilities float64 (N, C): float64 (N,)."""
    return _js(log_p, log_q, legacy=False)


def _js(log_p: Tensor, log_q: Tensor, legacy: bool) -> Tensor:
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    if legacy:
        reversed_ = (divergence(log_m, log_p) + divergence(log_m, log_q)) / 2
        return reversed_ / log_p.shape[1]
    return (divergence(log_p, log_m) + divergence(log_q, log_m)) / 2


class JSDivergence(Metric):
    """Jensen-Shannon divergence, in nats, between the unlearned and the retrained model on D_f.

    In [0, log 2]; 0 is the aim. See :func:`js_divergence` for the variant that published tables hold.
    """

    name = "js_divergence"
    unit = "nats"
    better = "lower"
    compares = Compares.RETRAINED
    source = "Chundawat et al., AAAI 2023"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the divergence on the forget set."""
        with undefined_where_invalid():
            return js_divergence(evaluated.forget.logits, evaluated.retrained.forget.logits)
