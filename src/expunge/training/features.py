"""What the layers of a classifier make of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.models.head import find_head, head_inputs
from expunge.training.loop import predict, training_mode
from expunge.training.numerics import Numerics

_GRID = 4
"""Feature maps are averaged down to at most this many rows and columns."""


@torch.no_grad()
def features(model: nn.Module, examples: Examples, numerics: Numerics) -> Tensor:
    """Return float32 (N, D), what enters the head for each example, in evaluation mode."""
    return features_and_logits(model, examples, numerics)[0]


@torch.no_grad()
def features_and_logits(model: nn.Module, examples: Examples, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """Return :func:`features` and the logits float32 (N, C) that the head makes of them."""
    found: list[Tensor] = []
    with head_inputs(model, examples.n_classes) as last:

        def forward(x: Tensor) -> Tensor:
            logits: Tensor = model(x)
            found.append(last().float().flatten(1))
            return logits

        with training_mode(model, False):
            logits = predict(forward, examples, numerics)
    return torch.cat(found), logits


def layer_names(model: nn.Module, n_classes: int) -> list[str]:
    """Return the names of the model's parts that own parameters, in order, without the one with the head.

    A part is a direct child of the model; lists and sequences of modules are taken apart.

    Raises:
        InvalidInput: the model has no linear head, or nothing before it.
    """
    head = find_head(model, n_classes)
    names = [
        name
        for name, part in _parts(model)
        if any(True for _ in part.parameters()) and not _holds(part, head)
    ]
    if not names:
        raise InvalidInput(f"{type(model).__name__} has no layer with parameters before its head")
    return names


def _parts(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            found += _parts(child, f"{prefix}{name}.")
        else:
            found.append((prefix + name, child))
    return found


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(inner is part for inner in module.modules())


@torch.no_grad()
def layer_features(
    model: nn.Module, examples: Examples, numerics: Numerics, layers: Sequence[str]
) -> dict[str, Tensor]:
    """Return name of the layer -> what it puts out for each example, in evaluation mode: float32 (N, D).

    See :func:`see_layers`, which holds no more than a batch of them.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    see_layers(model, examples, numerics, layers, lambda name, rows: found[name].append(rows))
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def see_layers(
    model: nn.Module,
    examples: Examples,
    numerics: Numerics,
    layers: Sequence[str],
    see: Callable[[str, Tensor], object],
) -> None:
    """Call ``see`` with each layer's name and what it puts out for a batch, batch by batch: float32 (B, D).

    Feature maps (N, C, H, W) are averaged over areas down to 4 x 4 at most, tokens (N, T, D) over T.

    Args:
        model: any module; run in evaluation mode.
        examples: whose features are wanted, in this order; at least one.
        numerics: where to compute.
        layers: names as in ``model.named_modules()``.
        see: keeps what it needs.

    Raises:
        InvalidInput: no example, a name the model does not have, or a layer that puts out no tensor or does
            not run once for each example.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise InvalidInput(
            f"{type(model).__name__} has no layer {unknown[0]!r}; it has {', '.join(filter(None, modules))}"
        )
    if len(examples) == 0:
        raise InvalidInput("features of no examples were asked for; check that the set is not empty first")
    seen = dict.fromkeys(layers, 0)

    def watch(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise InvalidInput(f"layer {name!r} puts out {type(output).__name__}; name one with a tensor")
        seen[name] += len(output)
        # What is computed of them is not the network's, whose precision may be lower.
        with torch.autocast(output.device.type, enabled=False):
            see(name, _flat(output.float()))

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(modules[name].register_forward_hook(partial(watch, name)))
        predict(model, examples, numerics)
    for name, count in seen.items():
        if count != len(examples):
            raise InvalidInput(
                f"layer {name!r} does not run once for each example; name one that a forward pass runs once"
            )


@torch.no_grad()
def layers_with_rows(model: nn.Module, x: Tensor) -> set[str]:
    """Return the names of the modules that run once for ``x`` and put out a tensor with a row for each input."""
    runs: dict[str, list[bool]] = {}
    place = next((parameter.device for parameter in model.parameters()), x.device)

    def keep(name: str, module: nn.Module, inputs: object, output: object) -> None:
        fits = isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(x)
        runs.setdefault(name, []).append(fits)

    with ExitStack() as hooks, training_mode(model, False):
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(keep, name)))
        model(x.to(place))
    return {name for name, fits in runs.items() if fits == [True]}


def _flat(output: Tensor) -> Tensor:
    if output.ndim == 4:
        size = (min(_GRID, output.shape[2]), min(_GRID, output.shape[3]))
        output = F.adaptive_avg_pool2d(output, size)
    elif output.ndim == 3:
        output = output.mean(1)
    return output.flatten(1)
