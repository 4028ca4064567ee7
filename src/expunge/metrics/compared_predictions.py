"""Predictions compared with those of another model: retrained, untrained, original."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.base import Better, Compares, Evaluated, Metric, NotDefined, Value
from expunge.metrics.distribution import divergence, log_probabilities, paired_log_probabilities
from expunge.training.initialisation import fresh_copy
from expunge.training.loop import predict


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
    """

    name = "activation_distance"
    unit = "probability"
    source = "Golatkar et al., CVPR 2021; in this form Chundawat et al., AAAI 2023"
    formula = staticmethod(activation_distance)


class Completeness(_BesideRetrained):
    """Share of D_f on which the unlearned and the retrained model predict the same class.

    Further values are the same on D_r and on the test set. Right and wrong predictions count alike.
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
    """

    name = "kl_to_retrained"
    unit = "nats"
    source = "Huang et al. (SFRon), NeurIPS 2024"

    @staticmethod
    def formula(first: Tensor, second: Tensor) -> float:
        """Return KL(p_r || p_u)."""
        return kl_divergence(second, first)


def zrf_score(logits: Tensor, untrained: Tensor, *, legacy: bool = False) -> float:
    """ZRF = 1 - mean over D_f of JS(M(x), T_d(x)), in [1 - log 2, 1] with JS in nats.

    Symbols: M -> ``logits`` (N, C), T_d -> ``untrained`` (N, C).

    Args:
        logits: of the model on the forget set.
        untrained: of a randomly initialised network on the same examples.
        legacy: with the divergence of the published code, see :func:`js_divergence`; it brings the score
            near 1 for any model that has many classes.

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite.

    Source: Chundawat et al., AAAI 2023.
    """
    return 1 - js_divergence(logits, untrained, legacy=legacy)


@dataclass(frozen=True, kw_only=True)
class ZRF(Metric):
    """Zero-retrain forgetting: 1 - JS between the model and an untrained network on D_f.

    The aim is the retrained model's score, not 1: a model that answers at random on D_f is told apart.

    Args:
        seed: of the untrained network; models of one architecture are compared with the same one.
        legacy: with the divergence of the published code; only for comparing with published tables.
    """

    name = "zrf"
    better = "reference"
    source = "Chundawat et al., AAAI 2023"

    seed: int = 0
    legacy: bool = False

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the score on the forget set; not defined for a model that cannot be drawn anew."""
        draw = torch.Generator().manual_seed(self.seed)
        untrained = evaluated.numerics.place(fresh_copy(evaluated.model, draw))
        logits = predict(untrained, evaluated.problem.split.forget, evaluated.numerics).cpu()
        return zrf_score(evaluated.forget.logits, logits, legacy=self.legacy)


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
    """

    name = "rf_jsd"
    unit = "nats"
    better = "lower"
    compares = Compares.ORIGINAL
    source = "Spartalis et al. (LoTUS), CVPR 2025, arXiv 2503.18314"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the divergence; not defined where whole classes are forgotten."""
        if evaluated.problem.split.forget_classes:
            raise NotDefined("whole classes are forgotten; it compares with the same class on the test set")
        forget, test = evaluated.forget, evaluated.original.test
        return rf_jsd(forget.logits, forget.labels, test.logits, test.labels)
