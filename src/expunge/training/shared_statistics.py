"""Batch normalisation over a batch that is divided among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SharedStatistics(TorchFunctionMode):
    """Within it, batch normalisation in training mode takes mean and variance over all processes' examples.

    Every process must normalise as often as the others. torch's SyncBatchNorm does not run on the CPU, and would
    replace layers that compute more than the standard one does.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, or what stands in for it."""
        named = dict(kwargs or {})
        if func is not F.batch_norm:
            return func(*args, **named)
        given = dict(zip(_BATCH_NORM, args, strict=False)) | named
        # Not a call of F.batch_norm again: this mode is off while it handles one.
        return batch_norm(**given) if given.get("training") else func(*args, **named)


_BATCH_NORM = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip
"""The parameters of ``torch.nn.functional.batch_norm``, in their order."""


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``input`` (B, C, ...), a process' part of a batch, normalised over the whole batch.

    y = (x - m) / sqrt(v + eps) * weight + bias, m and v of each channel over all processes; the running variance
    follows v n / (n - 1), n the number of values. Computed in float32 at least.
    """
    x = input if input.dtype == torch.float64 else input.float()
    others = [dim for dim in range(x.ndim) if dim != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    own = x.new_full((1,), x.numel() / x.shape[1])
    *sums, count = _Sum.apply(torch.cat([x.sum(others), own]))  # type: ignore[no-untyped-call]
    mean = torch.stack(sums) / count
    centred = x - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(others)) / count  # type: ignore[no-untyped-call]
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
    y: Tensor = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        y = y * weight.view(shape)
    if bias is not None:
        y = y + bias.view(shape)
    return y.to(input.dtype)


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient, as every process' loss depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
