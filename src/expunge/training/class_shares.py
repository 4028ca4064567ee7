"""Classes that a network hardly gives any more: the bias of its last layer brings them back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.models.head import find_head
from expunge.training.loop import predict
from expunge.training.numerics import Numerics

_SAMPLE = 8192
"""Examples that are looked at, at most."""
_LOST = 0.5
"""A class is lost where it is given less than this many times as often as it is there."""
_LARGEST = 2.0
"""By how much a bias is changed at most."""
_PROBE = 64
_CLOSE = 0.05
"""Share of the largest logit, or of 1, within which the logits must have followed the bias."""


@torch.no_grad()
def bring_back_lost_classes(
    model: nn.Module, examples: Examples, numerics: Numerics, generator: torch.Generator
) -> list[int]:
    """Where a class is lost, change the bias of the last layer so that mean_i p_i[c] is the share of label c.

    Where cross-entropy is at its lowest in a bias that holds by itself. A short training with other terms can end
    elsewhere: a class that is told apart with difficulty is hardly given any more. While no class is lost nothing is
    changed, since given labels that are wrong have shares of their own. A network whose last layer has no bias that is
    trained, or whose logits do not follow it, is left as it is.

    Args:
        model: changed in place.
        examples: with trusted labels; up to 8,192 are looked at.
        numerics: as in training.
        generator: of the choice.

    Returns:
        The classes that were lost and are given again; empty if nothing was changed.
    """
    try:
        head = find_head(model, examples.n_classes)
    except InvalidInput:
        return []
    if head.bias is None or not head.bias.requires_grad or not len(examples):
        return []
    some = examples.select(torch.randperm(len(examples), generator=generator)[:_SAMPLE])
    logits = predict(model, some, numerics).float()
    given, there = (torch.bincount(y, minlength=logits.shape[1]) for y in (logits.argmax(1), some.labels))
    lost = (given < _LOST * there).nonzero().flatten().tolist()
    if not lost:
        return []
    change = offsets(logits, some.labels)
    head.bias.add_(change.to(head.bias))
    few = some.select(torch.arange(min(_PROBE, len(some))))
    followed = predict(model, few, numerics).float() - logits[: len(few)]
    if float((followed - change).abs().max()) > _CLOSE * max(1.0, float(logits.abs().max())):
        head.bias.sub_(change.to(head.bias))
        return []
    return lost


def offsets(logits: Tensor, labels: Tensor, rounds: int = 30) -> Tensor:
    """Return float32 (C,): b with mean_i softmax(z_i + b)[c] = share of label c, within [-2, 2].

    By iterative scaling: b[c] grows by the logarithm of what the share is too large by. A class without a label has
    b = 0.

    Args:
        logits: float32 (N, C), the z_i.
        labels: int64 (N,).
        rounds: of the scaling.
    """
    shares = torch.bincount(labels, minlength=logits.shape[1]).to(logits) / len(labels)
    there = shares > 0
    b = torch.zeros_like(shares)
    for _ in range(rounds):
        given = (logits + b).softmax(1).mean(0)
        b = torch.where(there, b + (shares / given.clamp(min=1e-12)).log(), 0.0)
        b = torch.where(there, b - b[there].mean(), 0.0)
    return b.clamp(-_LARGEST, _LARGEST)
