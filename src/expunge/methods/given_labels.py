"""What predictions say of the labels that examples were given."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FEW = 5
"""Examples of a label below which it is not said to be exchanged with another one."""
_FEWEST_WRONG = 1e-6
"""Share of wrong labels at least, so that examples keep their order where none seems wrong."""


def second_answers(answers: Tensor, labels: Tensor) -> Tensor:
    """Return what a network says of examples of two exchanged labels when their given label is left out.

    Two labels are exchanged where, of five or more examples of either, more than half are given the other one then.

    Args:
        answers: float (N, C), logits of the network that learned the labels.
        labels: int64 (N,), the given labels.

    Returns:
        float32 (N, C): ~ p^2 without the entry of the given label, with p the softmax of ``answers``; 0 for examples of
        all other labels.
    """
    second = (2 * answers.float()).scatter(1, labels[:, None], float("-inf")).softmax(1)
    listed = torch.bincount(labels, minlength=answers.shape[1])
    (given, other), counts = torch.unique(torch.stack((labels, second.argmax(1))), dim=1, return_counts=True)
    mostly = (2 * counts > listed[given]) & (listed[given] >= _FEW)
    partner = torch.full_like(listed, -1)
    partner[given[mostly]] = other[mostly]
    exchanged = (partner >= 0) & (partner[partner] == torch.arange(len(partner), device=partner.device))
    return second * exchanged[labels][:, None]


def wrong_label_probability(p: Tensor, labels: Tensor, among: Tensor) -> Tensor:
    """Return float32 (N,): the probability that an example's given label is wrong.

    rho (1 - q_y) / (C - 1) over itself plus (1 - rho) q_y, with q ~ p^(1 / T): a wrong label is any of those that
    the example does not have. The temperature T and the share rho of wrong labels are those with the highest likelihood
    of the given labels.

    Args:
        p: float32 (N, C), predictions of a network that has not memorised the labels.
        labels: int64 (N,), the given labels y.
        among: bool (N,), the examples that T and rho are estimated from.
    """
    place = p.device
    p, labels, among = (
        p.cpu(),
        labels.cpu(),
        among.cpu(),
    )  # a figure of each step would wait for an accelerator
    best = (-math.inf, torch.zeros(len(labels)))
    for temperature in (0.5, 0.7, 1.0, 1.5, 2.0, 3.0):
        q = (p.clamp(min=1e-6).log() / temperature).softmax(1)
        right = q.gather(1, labels[:, None]).squeeze(1).clamp(1e-9, 1 - 1e-9)
        wrong = (1 - right) / (p.shape[1] - 1)
        share = 0.1
        for _ in range(50):
            evidence = share * wrong + (1 - share) * right
            posterior = share * wrong / evidence
            share = max(float(posterior[among].mean()), _FEWEST_WRONG)
        likelihood = float(evidence[among].log().sum())
        if likelihood > best[0]:
            best = likelihood, posterior
    return best[1].to(place)
