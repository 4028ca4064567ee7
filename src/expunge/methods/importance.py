"""How much each parameter matters for a set of examples, and the damping of those that matter too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Batch, Examples, batch_count
from expunge.errors import InvalidInput
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent, training_mode
from expunge.training.numerics import Numerics

Importances = dict[str, Tensor]
"""Float32 tensors of the parameters' shapes, by parameter name; frozen parameters are left out."""


def fisher_importances(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    meter: Meter,
    *,
    batch_size: int,
    order: torch.Generator | None = None,
    progress: Progress = silent,
) -> Importances:
    """Mean over mini-batches of (gradient of the batch's mean cross-entropy)^2, evaluation mode.

    The square of a mean is not the mean of the squares: the values depend on ``batch_size``.

    Args:
        model: left as it is; no gradient stays on it.
        examples: with the labels of the cross-entropy.
        numerics: device and memory format; the passes are in float32.
        meter: counts sample gradients.
        batch_size: examples a mini-batch.
        order: shuffles the examples and augments them; without one, neither is done.
        progress: receives the share of the batches that are done.

    Raises:
        InvalidInput: no examples, or no parameter that requires a gradient.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.y)

    sums, count = _sum_over_batches(
        model, examples, numerics, meter, loss, torch.square, batch_size, order, progress
    )
    return {name: total / count for name, total in sums.items()}


def label_free_importances(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    meter: Meter,
    *,
    batch_size: int,
    squared: bool = False,
    order: torch.Generator | None = None,
    progress: Progress = silent,
) -> Importances:
    """Mean over mini-batches of |gradient of mean_i ||logits_i||_2|, evaluation mode; no label is read.

    With ``squared`` of mean_i ||logits_i||_2^2. The rest as in :func:`fisher_importances`.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return logits.square().sum(1).mean() if squared else torch.linalg.vector_norm(logits, dim=1).mean()

    sums, count = _sum_over_batches(
        model, examples, numerics, meter, loss, torch.abs, batch_size, order, progress
    )
    return {name: total / count for name, total in sums.items()}


def saliency(
    model: nn.Module, examples: Examples, numerics: Numerics, meter: Meter, *, batch_size: int
) -> Importances:
    """|gradient of the mean cross-entropy over all examples|, evaluation mode, without augmentation.

    As in :func:`fisher_importances`, but the values do not depend on ``batch_size``.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.y, reduction="sum") / len(examples)

    sums, _ = _sum_over_batches(
        model, examples, numerics, meter, loss, lambda gradient: gradient, batch_size, None, silent
    )
    return {name: total.abs() for name, total in sums.items()}


def _sum_over_batches(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    meter: Meter,
    loss: Callable[[Tensor, Batch], Tensor],
    size: Callable[[Tensor], Tensor],
    batch_size: int,
    order: torch.Generator | None,
    progress: Progress,
) -> tuple[Importances, int]:
    """Return the sums over the batches of ``size`` of the gradient of ``loss``, and the number of batches."""
    if len(examples) == 0:
        raise InvalidInput(
            "importances are not defined over no examples; check that the set is not empty first"
        )
    named = trainable(model)
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    n = len(examples)
    count = math.ceil(n / batch_size) if order is None else batch_count(n, batch_size)
    batches = examples.batches(batch_size, order, augment=order is not None)
    with training_mode(model, False), torch.enable_grad():
        for number, batch in enumerate(batches):
            # In float32 whatever the precision: a ratio of small squares is what decides.
            logits = model(numerics.place_inputs(batch.x))
            value = loss(logits.float(), batch)
            # A parameter the output does not depend on, such as a spare unit's, has no gradient at all.
            gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += size(gradient.float())
            meter.count(len(batch))
            progress((number + 1) / count)
    return sums, count


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name.

    Raises:
        InvalidInput: there is none.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not named:
        raise InvalidInput("no parameter requires a gradient; unfreeze what may be changed")
    return named


@torch.no_grad()
def dampen(
    model: nn.Module,
    forget: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    *,
    threshold: float,
    strength: float = 1.0,
) -> float:
    """Scale w by min(strength * I_ref / I_F, 1) where I_F > threshold * I_ref, in place.

    Returns the share of the parameters in ``forget`` that were selected.
    """
    named = dict(model.named_parameters())
    selected = total = 0
    for name, importance in forget.items():
        chosen = importance > threshold * reference[name]
        # Where chosen, I_F is above something that is not negative, so nothing is divided by zero there.
        factor = (strength * reference[name] / importance).clamp(max=1.0)
        named[name].copy_(torch.where(chosen, named[name] * factor, named[name]))
        selected += int(chosen.sum())
        total += chosen.numel()
    return selected / total
