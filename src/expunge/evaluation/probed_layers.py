"""Which layers of a model an audit looks into."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.training.features import layer_names, layers_with_rows


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
    usable = layers_with_rows(model, x)
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
