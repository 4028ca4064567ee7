"""One number for each example: how a classifier answers it, as membership attacks read it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.errors import InvalidInput
from expunge.metrics.distribution import log_probabilities

_PUBLISHED_FLOOR = 1e-30


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each example, -log p_y, in nats: float64 (N,).

    Args:
        logits: float (N, C), C at least 2.
        labels: int64 (N,), y.

    Raises:
        InvalidInput: no example, a logit that is not finite, or labels that do not fit the logits.
    """
    return -_at(checked_log_probabilities(logits, labels), labels)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the label, p_y: float64 (N,).

    It rounds to 1 where the loss is below 1e-16; an order of examples is to be taken from the loss.
    Arguments and errors are those of :func:`loss`.
    """
    return _at(checked_log_probabilities(logits, labels), labels).exp()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits), -sum_c p_c log p_c, in nats: float64 (N,), of logits (N, C), C at least 2.

    Raises:
        InvalidInput: no example, or a logit that is not finite.
    """
    log_p = log_probabilities(logits)
    return -(log_p.exp() * log_p).sum(1)


def modified_entropy(logits: Tensor, labels: Tensor, *, legacy: bool = False) -> Tensor:
    """Modified entropy of each example, in nats, 0 for a sure right answer: float64 (N,).

    Mentr(x, y) = -(1 - p_y) log p_y - sum_{j != y} p_j log(1 - p_j), of each row by its own label.

    Args:
        logits: as for :func:`loss`.
        labels: likewise.
        legacy: instead what many published programs compute, for comparison with their tables: in every row the
            columns of **all** labels in ``labels`` count as the row's own, and log p_j stands for log(1 - p_j). A
            right and a wrong answer can then score the same, and a row's value depends on the other rows.

    Raises:
        InvalidInput: as for :func:`loss`.

    Source: Song and Mittal, USENIX Security 2021 (arXiv 2003.10595).
    """
    log_p = checked_log_probabilities(logits, labels)
    p, log_rest = log_p.exp(), _log_one_minus(log_p)
    if legacy:
        every = torch.zeros(p.shape[1], dtype=torch.bool, device=p.device)
        every[labels] = True
        floored = torch.where(p.float() > 0, log_p, math.log(_PUBLISHED_FLOOR))
        return -(torch.where(every, log_rest.exp(), p) * floored).sum(1)
    own = F.one_hot(labels, p.shape[1]).bool()
    return -torch.where(own, log_rest.exp() * log_p, p * log_rest).sum(1)


def correctness(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest logit is at the label, else 0: float64 (N,).

    Arguments and errors are those of :func:`loss`.
    """
    checked_log_probabilities(logits, labels)
    return (logits.argmax(1) == labels).double()


def logit_gap(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-odds of the label, phi = log p_y - log sum_{j != y} p_j: float64 (N,).

    Arguments and errors are those of :func:`loss`. It equals z_y - logsumexp_{j != y} z_j in the logits z,
    which does not overflow where p_y rounds to 1.

    Source: Carlini et al., IEEE S&P 2022 (arXiv 2112.03570).
    """
    checked_log_probabilities(logits, labels)
    z = logits.double()
    own = F.one_hot(labels, z.shape[1]).bool()
    return _at(z, labels) - z.masked_fill(own, -math.inf).logsumexp(1)


def _at(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None]).squeeze(1)


def _log_one_minus(log_p: Tensor) -> Tensor:
    """log(1 - p_j) of every class."""
    top = log_p.argmax(1, keepdim=True)
    # 1 - p cancels only for the one class that can be above 1/2: there the others are added up instead.
    of_top = log_p.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    return torch.log1p(-log_p.exp().scatter(1, top, 0.0)).scatter(1, top, of_top)


def checked_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Log softmax(logits), float64 (N, C); arguments and errors are those of :func:`loss`."""
    log_p = log_probabilities(logits)
    if labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise InvalidInput(
            f"labels must be int64 ({len(logits)},), one for each row of logits, got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise InvalidInput(
            f"labels must lie in 0..{logits.shape[1] - 1}, the classes of the logits, got "
            f"{int(labels.min())}..{int(labels.max())}; give labels of the classes the model was trained on"
        )
    return log_p
