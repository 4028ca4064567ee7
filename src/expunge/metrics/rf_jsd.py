"""Retrain-free Jensen-Shannon divergence: is the forget set treated like unseen data?"""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined
from expunge.metrics.beside_retrained import js_of_log_probabilities
from expunge.metrics.distribution import log_probabilities


def rf_jsd(forget: Tensor, forget_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Mean over the classes of JS(P_c, Q_c), in nats, in [0, log 2].

    P_c is the mean of softmax(f_u(x)) over the examples of class c in D_f, Q_c that of softmax(f_o(x)) over
    those in D_t. Classes that one of the two sets lacks are left out.

    Args:
        forget: logits (F, C) of the unlearned model on the forget set.
        forget_labels: int64 (F,).
        test: logits (T, C) of the original model on the test set.
        test_labels: int64 (T,).

    Raises:
        InvalidInput: no class in common, numbers of classes that differ, or logits that are not finite.
    """
    log_p, log_q = log_probabilities(forget), log_probabilities(test)
    if log_p.shape[1] != log_q.shape[1]:
        raise InvalidInput(
            f"models of one number of classes are expected, got {log_p.shape[1]} and {log_q.shape[1]}"
        )
    common = sorted(set(forget_labels.tolist()) & set(test_labels.tolist()))
    if not common:
        raise InvalidInput("the forget set and the test set have no class in common")
    first = torch.stack([log_p[forget_labels == label].exp().mean(0) for label in common])
    second = torch.stack([log_q[test_labels == label].exp().mean(0) for label in common])
    return float(js_of_log_probabilities(first.log(), second.log()).mean())


class RFJSD(Metric):
    """Retrain-free JSD: the unlearned model on D_f against the original on D_t, class by class, in nats.

    0: the forget set is answered like data that was never seen. For forgotten samples only: where whole
    classes go, the original's answers on test images of that class are no aim.

    Source: Spartalis et al. (LoTUS), CVPR 2025, arXiv 2503.18314.
    """

    name = "rf_jsd"
    unit = "nats"
    better = "lower"
    compares = Compares.ORIGINAL
    source = "Spartalis et al., CVPR 2025"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the divergence; not defined where whole classes are forgotten."""
        if evaluated.problem.split.forget_classes:
            raise NotDefined("whole classes are forgotten; it compares with the same class on the test set")
        forget, test = evaluated.forget, evaluated.original.test
        return rf_jsd(forget.logits, forget.labels, test.logits, test.labels)
