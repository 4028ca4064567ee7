"""Dedicated neurons for any network: parallel branches beside its layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.models.split import Route, SplitNetwork
from expunge.seeding import global_generator


class _ConvBranch(nn.Module):
    """Convolution of the layer's geometry, normalisation, ReLU; the mask; a 1x1 convolution back."""

    def __init__(self, layer: nn.Conv2d, units: int) -> None:
        super().__init__()
        self.units = units
        self.down = nn.Conv2d(
            layer.in_channels,
            units,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=False,
        )
        self.norm = nn.BatchNorm2d(units)
        self.up = nn.Conv2d(units, layer.out_channels, 1, bias=False)

    def forward(self, x: Tensor, route: Route, site: int) -> Tensor:
        hidden: Tensor = route(self.norm(self.down(x)).relu(), 0, site)
        up: Tensor = self.up(hidden)
        return up


class _LinearBranch(nn.Module):
    """Linear layer, normalisation, ReLU; the mask; a linear layer back. Any dimensions between."""

    def __init__(self, layer: nn.Linear, units: int) -> None:
        super().__init__()
        self.units = units
        self.down = nn.Linear(layer.in_features, units, bias=False)
        self.norm = nn.LayerNorm(units)
        self.up = nn.Linear(units, layer.out_features, bias=False)

    def forward(self, x: Tensor, route: Route, site: int) -> Tensor:
        hidden = route(self.norm(self.down(x)).relu(), 0, site, x.ndim - 1)
        up: Tensor = self.up(hidden)
        return up


class Branched(nn.Module):
    """A network with a masked branch added to the output of its layers.

    ``forward(x)`` is the network itself, untouched. ``forward(x, route)`` adds each branch. Branches are
    put beside every ungrouped Conv2d and every Linear but the last one (the classifier head).

    Args:
        model: any module that maps a batch to logits; held, not copied.
        spare: units of a branch for each output unit of its layer.
        source: generator of the initial values.

    Raises:
        InvalidInput: the network has no layer a branch can stand beside.
    """

    def __init__(self, model: nn.Module, spare: float, source: torch.Generator) -> None:
        super().__init__()
        self.model = model
        layers = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        ]
        linear = [name for name, module in layers if isinstance(module, nn.Linear)]
        self._names = [name for name, _ in layers if not linear or name != linear[-1]]
        if not self._names:
            raise InvalidInput(
                f"{type(model).__name__} has no Conv2d, and no Linear beside its head, that dedicated neurons "
                "could be attached to; choose a method that adds none, such as 'npo'"
            )
        branches: list[nn.Module] = []
        with global_generator(source):
            for name, layer in layers:
                if name not in self._names:
                    continue
                if isinstance(layer, nn.Conv2d):
                    branches.append(_ConvBranch(layer, max(1, round(layer.out_channels * spare))))
                else:
                    branches.append(_LinearBranch(layer, max(1, round(layer.out_features * spare))))
        reference = next(model.parameters())
        self.branches = nn.ModuleList(branches).to(reference.device, reference.dtype)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """Return logits (B, n_classes), through the branches when there is a route."""
        if route is None:
            logits: Tensor = self.model(x)
            return logits
        # Hooks live for one call: the caller's network keeps none, and copies share none.
        handles = [
            self.model.get_submodule(name).register_forward_hook(
                partial(_add_branch, branch=branch, route=route, site=site)
            )
            for site, (name, branch) in enumerate(zip(self._names, self.branches, strict=True))
        ]
        try:
            logits = self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        return logits

    def narrow(self) -> nn.Module:
        """Return the network without its branches."""
        return self.model


def _add_branch(
    layer: nn.Module, inputs: tuple[Any, ...], output: Tensor, *, branch: nn.Module, route: Route, site: int
) -> Tensor:
    added: Tensor = branch(inputs[0], route, site)
    return output + added


def add_capacity(model: nn.Module, spare: float, source: torch.Generator) -> SplitNetwork | Branched:
    """Give ``model`` dedicated neurons: spare units where it can be widened, else branches.

    The result has ``forward(x)``, the base path, ``forward(x, route)`` and ``narrow()``.
    """
    if isinstance(model, SplitNetwork):
        return model if model.spare else model.widen(spare, source)
    return Branched(model, spare, source)
