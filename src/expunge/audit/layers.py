"""Which layers of a model an audit looks into."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.metrics.features import layer_names
from expunge.training.loop import training_mode


def probed_layers(model: nn.Module, x: Tensor, n_classes: int, most: int) -> tuple[str, ...]:
    """Return up to ``most`` layers before the head, evenly spaced, the last one among them; none without a head.

    A part that puts out no tensor, as the body of a model of ``transformers`` does, is taken apart.

    Args:
        model: to be looked into.
        x: a batch of its inputs.
        n_classes: its outputs.
        most: number of layers, at least 1.
    """
    try:
        names = layer_names(model, n_classes)
    except InvalidInput:
        return ()
    usable = _with_a_tensor(model, x)
    modules = dict(model.named_modules())
    found = [inner for name in names for inner in _taken_apart(name, modules[name], usable)]
    count = min(most, len(found))
    return tuple(found[(number + 1) * len(found) // count - 1] for number in range(count))


def _taken_apart(name: str, module: nn.Module, usable: set[str]) -> list[str]:
    if name in usable:
        return [name]
    return [
        inner
        for child, part in module.named_children()
        if any(True for _ in part.parameters())
        for inner in _taken_apart(f"{name}.{child}", part, usable)
    ]


@torch.no_grad()
def _with_a_tensor(model: nn.Module, x: Tensor) -> set[str]:
    """Return the names of the modules that run once and put out a tensor with a row for each input."""
    runs: dict[str, list[bool]] = {}
    place = next((parameter.device for parameter in model.parameters()), x.device)
    handles = []
    for name, module in model.named_modules():

        def keep(_: nn.Module, __: object, output: object, name: str = name) -> None:
            fits = isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(x)
            runs.setdefault(name, []).append(fits)

        handles.append(module.register_forward_hook(keep))
    try:
        with training_mode(model, False):
            model(x.to(place))
    finally:
        for handle in handles:
            handle.remove()
    return {name for name, fits in runs.items() if fits == [True]}
