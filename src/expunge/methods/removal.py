"""Removing the forget set from a network without other data: passes over it until it is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Batch, Examples
from expunge.methods.base import Request
from expunge.methods.gradient import GradientMethod
from expunge.training.batchnorm import forget_statistics, running_statistics
from expunge.training.loop import Loss, accuracy, predict, silent

ReferenceLoss = Callable[[Batch], Tensor]
"""Cross-entropy of a frozen reference network on a batch: float32 (B,)."""


def npo(excess: Tensor, beta: float) -> Tensor:
    """Return -(2 / beta) log sigmoid(beta z), element by element.

    Minimising it raises the cross-entropy above the reference's and fades out once it has: the
    derivative is -2 sigmoid(-beta z). Its negative pulls the cross-entropy down with the same weight.

    Args:
        excess: z = ce - ce_ref, cross-entropy of the model minus that of the reference, in nats.
        beta: inverse temperature, above 0.

    Source: Zhang et al., "Negative Preference Optimization", 2024; in this form Schoepf et al., 2025.
    """
    return -(2 / beta) * F.logsigmoid(beta * excess)


@dataclass(frozen=True)
class CachedLoss:
    """Reference cross-entropies computed once, without augmentation.

    Args:
        values: float32, one per row of the source.
    """

    values: Tensor

    @classmethod
    def of(cls, model: nn.Module, examples: Examples, request: Request) -> CachedLoss:
        """Measure ``model`` on ``examples``, base path, evaluation mode."""
        logits = predict(model, examples, request.numerics)
        values = torch.zeros(len(examples.source), device=logits.device)
        values[examples.index] = F.cross_entropy(logits, examples.labels, reduction="none")
        return cls(values)

    def __call__(self, batch: Batch) -> Tensor:
        """Look the batch up."""
        return self.values[batch.index]


@dataclass(frozen=True)
class RaiseLoss:
    """Objective that raises the cross-entropy of the forget set.

    "npo": mean of -(2 / beta) log sigmoid(beta (ce - ce_ref)), which fades once ce exceeds ce_ref by a few
    nats. "ascent": mean of -ce, without bound.

    Args:
        removal: "npo" or "ascent".
        reference: ce_ref; unused by ascent.
        beta: of NPO.
        batch_statistics: normalise by the batch, as the published code does; off, by running statistics, those
            of the network that is deployed.
    """

    removal: str
    reference: ReferenceLoss
    beta: float = 1.0
    batch_statistics: bool = False

    def terms(self, model: nn.Module, batch: Batch) -> Tensor:
        """One value per example, to be minimised."""
        with forget_statistics(model, batch) if self.batch_statistics else running_statistics(model):
            logits = model(batch.x)
        loss = F.cross_entropy(logits.float(), batch.y, reduction="none")
        if self.removal == "ascent":
            return -loss
        return npo(loss - self.reference(batch), self.beta)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean over the batch."""
        return Loss(self.terms(model, batch).mean(), len(batch))


def remove(
    method: GradientMethod,
    model: nn.Module,
    forget: Examples,
    objective: RaiseLoss,
    request: Request,
    *,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    threshold: float,
    max_passes: int,
    augmentation: torch.Generator | None = None,
) -> int:
    """Pass over ``forget`` until its accuracy on the given labels is at most ``threshold``.

    With ``augmentation``, a CPU generator, that accuracy is measured on inputs augmented by its draws.

    Returns the number of passes made, at most ``max_passes``.
    """
    for number in range(max_passes):
        if accuracy(model, forget, request.numerics, augmentation=augmentation) <= threshold:
            return number
        method.fit(
            model, forget, objective, request, epochs=1, optimizer=optimizer, order=order, progress=silent
        )
    return max_passes
