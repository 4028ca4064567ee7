"""Predictions compared with those of the retrained model: distance, agreement, divergences."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from expunge.metrics.base import Better, Compares, Evaluated, Metric, Value
from expunge.metrics.distribution import divergence, paired_log_probabilities


def activation_distance(first: Tensor, second: Tensor) -> float:
    """Mean over the examples of ||softmax(a_i) - softmax(b_i)||_2, in [0, sqrt 2].

    Symbols: a -> ``first``, b -> ``second``, logits (N, C).

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite; so for all functions here.
    """
    log_p, log_q = paired_log_probabilities(first, second)
    return float((log_p.exp() - log_q.exp()).norm(dim=1).mean())


def agreement(first: Tensor, second: Tensor) -> float:
    """Share of the examples for which two models predict the same class, in [0, 1], from logits (N, C) of both."""
    paired_log_probabilities(first, second)
    return float((first.argmax(1) == second.argmax(1)).double().mean())


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
    """
    return float(js_of_log_probabilities(*paired_log_probabilities(first, second), legacy).mean())


def js_of_log_probabilities(log_p: Tensor, log_q: Tensor, legacy: bool = False) -> Tensor:
    """JS(p, q) in nats by row, of log probabilities float64 (N, C): float64 (N,)."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    if legacy:
        return (divergence(log_m, log_p) + divergence(log_m, log_q)) / 2 / log_p.shape[1]
    return (divergence(log_p, log_m) + divergence(log_q, log_m)) / 2


def kl_divergence(reference: Tensor, logits: Tensor) -> float:
    """Mean over the examples of KL(p_r || p_u), in nats; 0 or more, without an upper bound.

    Symbols: p_r = softmax(``reference``), p_u = softmax(``logits``), logits (N, C).
    """
    log_r, log_u = paired_log_probabilities(reference, logits)
    return float(divergence(log_r, log_u).mean())


class _BesideRetrained(Metric):
    """A number of two models' logits on one set: the value is that on D_f, with the sets in ``beside`` after it."""

    better: ClassVar[Better] = "lower"
    compares = Compares.RETRAINED
    beside: ClassVar[tuple[str, ...]] = ("retain",)

    @staticmethod
    @abstractmethod
    def formula(first: Tensor, second: Tensor) -> float:
        """Return the number for logits (N, C) of the unlearned and of the retrained model."""

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The number on the forget set, and on the other sets, where there are any: its name with "_" + set."""
        sets = ("forget", *(name for name in self.beside if name != "test" or evaluated.has("test")))
        found = {name: self._on(evaluated, name) for name in sets}
        return {self.name if name == "forget" else f"{self.name}_{name}": v for name, v in found.items()}

    def _on(self, evaluated: Evaluated, name: str) -> Value:
        mine, theirs = (getattr(model, name).logits for model in (evaluated, evaluated.retrained))
        return Value(self.formula(mine, theirs))


class ActivationDistance(_BesideRetrained):
    """Mean L2 distance between the probabilities of the unlearned and the retrained model on D_f.

    A second value is the same on D_r. 0 is the aim; compare with the distance between two retrainings.

    Source: Golatkar et al., CVPR 2021; in this form Chundawat et al., AAAI 2023.
    """

    name = "activation_distance"
    unit = "probability"
    source = "Golatkar et al., CVPR 2021"
    formula = staticmethod(activation_distance)


class Completeness(_BesideRetrained):
    """Share of D_f on which the unlearned and the retrained model predict the same class.

    Further values are the same on D_r and on the test set. Right and wrong predictions count alike.

    Source: Cao and Yang, IEEE S&P 2015.
    """

    name = "completeness"
    better = "higher"
    source = "Cao and Yang, IEEE S&P 2015"
    beside = ("retain", "test")
    formula = staticmethod(agreement)


class JSDivergence(_BesideRetrained):
    """Jensen-Shannon divergence, in nats, between the unlearned and the retrained model on D_f.

    In [0, log 2]; 0 is the aim. See :func:`js_divergence` for the variant that published tables hold.
    """

    name = "js_divergence"
    unit = "nats"
    source = "Chundawat et al., AAAI 2023"
    beside = ()
    formula = staticmethod(js_divergence)


class KLToRetrained(_BesideRetrained):
    """KL(p_r || p_u), in nats, of the unlearned from the retrained model, averaged over D_f and over D_r.

    The value is that on D_f; "kl_to_retrained_retain" is that on D_r. 0 is the aim.

    Source: Huang et al. (SFRon), NeurIPS 2024.
    """

    name = "kl_to_retrained"
    unit = "nats"
    source = "Huang et al., NeurIPS 2024"

    @staticmethod
    def formula(first: Tensor, second: Tensor) -> float:
        """Return KL(p_r || p_u)."""
        return kl_divergence(second, first)
