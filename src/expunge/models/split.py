"""Layers and networks whose units are split into a base part and spare ones that come after it.

A split layer owns one weight; its leading corner ``[:base_out, :base_in]`` is the base. The base path
computes with that corner alone, so it costs and returns what a network without spare units would, bit for
bit. The wide path uses the whole weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.errors import InvalidInput
from expunge.seeding import global_generator


class Route(Protocol):
    """Decides which spare units an example may use."""

    def __call__(self, x: Tensor, base: int, site: int, dim: int = 1) -> Tensor:
        """Return ``x`` with the closed units along ``dim`` set to zero; the first ``base`` stay open.

        Examples lie along dimension 0; ``site`` is the number of the place in the network, so that places can differ.
        """


class SplitConv2d(nn.Conv2d):
    """Convolution over ``base + spare`` channels; ``wide=False`` computes the base corner only."""

    def __init__(
        self,
        inputs: tuple[int, int],
        outputs: tuple[int, int],
        kernel: int,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        self.base_in, self.base_out = inputs[0], outputs[0]
        super().__init__(sum(inputs), sum(outputs), kernel, stride, padding)

    def forward(self, x: Tensor, wide: bool = False) -> Tensor:
        """Return (B, base_out, H', W'), or all output channels if ``wide``."""
        if wide or (self.base_out == self.out_channels and self.base_in == self.in_channels):
            return super().forward(x)
        weight = self.weight[: self.base_out, : self.base_in]
        bias = None if self.bias is None else self.bias[: self.base_out]
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation)


class SplitLinear(nn.Linear):
    """Linear layer over ``base + spare`` features; ``wide=False`` computes the base corner only."""

    def __init__(self, inputs: tuple[int, int], outputs: tuple[int, int], bias: bool = True) -> None:
        self.base_in, self.base_out = inputs[0], outputs[0]
        super().__init__(sum(inputs), sum(outputs), bias)

    def forward(self, x: Tensor, wide: bool = False) -> Tensor:
        """Return (..., base_out), or all output features if ``wide``."""
        if wide:
            return super().forward(x)
        bias = None if self.bias is None else self.bias[: self.base_out]
        # contiguous: a strided corner makes the matrix library sum in another order, and the base path
        # would no longer equal the narrow network's bit for bit
        return F.linear(x, self.weight[: self.base_out, : self.base_in].contiguous(), bias)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose leading ``base`` channels can be run alone.

    As in torch, ``momentum=0`` leaves the running statistics alone and ``momentum=None`` averages.
    """

    def __init__(self, base: int, spare: int) -> None:
        self.base = base
        super().__init__(base + spare)

    def forward(self, x: Tensor, wide: bool = False) -> Tensor:
        """Return normalised ``x`` (B, base or base + spare, H, W)."""
        if wide or self.base == self.num_features:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        # Slices are views: the running statistics of the base are updated in place.
        return F.batch_norm(
            x,
            self.running_mean[: self.base],
            self.running_var[: self.base],
            self.weight[: self.base],
            self.bias[: self.base],
            self.training,
            momentum or 0.0,
            self.eps,
        )


class SplitUnit(nn.Module):
    """Convolution, batch normalisation and an activation over ``base + spare`` channels."""

    def __init__(
        self,
        inputs: tuple[int, int],
        outputs: tuple[int, int],
        activation: Callable[[Tensor], Tensor],
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
    ) -> None:
        super().__init__()
        self.conv = SplitConv2d(inputs, outputs, kernel, stride, padding)
        self.norm = SplitBatchNorm2d(*outputs)
        self._activation = activation

    def forward(self, x: Tensor, wide: bool) -> Tensor:
        """Return the activations (B, base or base + spare, H', W')."""
        return self._activation(self.norm(self.conv(x, wide), wide))


class SplitNetwork(nn.Module):
    """A classifier that can be given spare units (:meth:`widen`) and lose them again (:meth:`narrow`).

    ``forward(x)`` is the base path. ``forward(x, route)`` is the wide path, in which ``route`` decides
    which spare units each example may use. Subclasses give their constructor's arguments to :meth:`keep_settings`;
    among them are ``capacity``, the share of the width that the base has, and ``spare``, the number of spare units
    for each base unit (0: none, 1: twice as wide).
    """

    settings: dict[str, Any]

    def keep_settings(self, arguments: dict[str, Any]) -> None:
        """Set :attr:`settings` to a constructor's arguments, given as its ``locals()``."""
        self.settings = {k: value for k, value in arguments.items() if k not in ("self", "__class__")}

    def require_size(self, least: int) -> None:
        """Raise unless images have ``least`` pixels a side and the base has a channel in the first layer.

        Raises:
            InvalidInput: smaller images, ``capacity`` outside (0, 1], no channel, or a negative ``spare``.
        """
        network, size, width = type(self).__name__, self.settings["size"], self.settings["width"]
        capacity, spare = self.settings["capacity"], self.settings["spare"]
        if size < least:
            raise InvalidInput(
                f"{network} needs images of at least {least}x{least} pixels, got {size}x{size}; enlarge them"
            )
        if not 0 < capacity <= 1 or int(width * capacity) < 1 or spare < 0:
            raise InvalidInput(
                f"{network} needs capacity in (0, 1], width * capacity of at least one channel and spare >= 0, "
                f"got width {width}, capacity {capacity}, spare {spare}"
            )

    def parts(self, full: int) -> tuple[int, int]:
        """Return how many base and spare units a layer of ``full`` units has."""
        base = int(full * self.settings["capacity"])
        return base, round(base * self.settings["spare"])

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return logits (B, n_classes)."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def reset_parameters(self) -> None:
        """Draw every parameter anew as torch does, and clear running statistics."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear | nn.LayerNorm):
                module.reset_parameters()

    @property
    def spare(self) -> float:
        """Spare units for each base unit."""
        return float(self.settings["spare"])

    def require_spare(self, route: Route | None) -> bool:
        """Whether the wide path is asked for; raise if there is none."""
        if route is not None and not self.spare:
            raise InvalidInput(
                f"this {type(self).__name__} has no spare units to route through; call widen() first"
            )
        return route is not None

    def widen(self, spare: float, generator: torch.Generator) -> Self:
        """Return a wider copy: the same base, with freshly initialised spare units.

        Raises:
            InvalidInput: ``spare`` is not positive, or the network is wide already.
        """
        if spare <= 0:
            raise InvalidInput(f"spare must be above 0 (spare units for each base unit), got {spare}")
        if self.spare:
            raise InvalidInput(f"this {type(self).__name__} already has spare units; call narrow() first")
        return self._resized(spare, generator)

    def narrow(self) -> Self:
        """Return a copy without the spare units."""
        return self._resized(0.0, torch.Generator())

    def _resized(self, spare: float, generator: torch.Generator) -> Self:
        with global_generator(generator):
            other = type(self)(**{**self.settings, "spare": spare})
        reference = next(self.parameters())
        other = other.to(reference.device, reference.dtype)
        mine, theirs = self.state_dict(), other.state_dict()
        for name, tensor in theirs.items():
            # Base units come first along every dimension, so the part in common is the leading corner.
            corner = tuple(slice(0, min(a, b)) for a, b in zip(tensor.shape, mine[name].shape, strict=True))
            tensor[corner].copy_(mine[name][corner])
        for parameter, original in zip(other.parameters(), self.parameters(), strict=True):
            parameter.requires_grad_(original.requires_grad)
        other.train(self.training)
        return other
