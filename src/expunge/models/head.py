"""The last layer of a classifier, found by what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from expunge.errors import InvalidInput


def find_head(model: nn.Module, n_classes: int) -> nn.Linear:
    """Return the linear layer that makes the logits: the last one registered with ``n_classes`` outputs.

    Raises:
        InvalidInput: there is none.
    """
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == n_classes
    ]
    if not found:
        raise InvalidInput(
            f"{type(model).__name__} has no linear layer with {n_classes} outputs, one for each class; "
            "this needs a model that ends in nn.Linear"
        )
    return found[-1]


@contextmanager
def head_inputs(model: nn.Module, n_classes: int) -> Iterator[Callable[[], Tensor]]:
    """Record what enters the head: yields a function that returns the last batch's features (B, D)."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept[:] = [inputs[0]]

    handle = find_head(model, n_classes).register_forward_pre_hook(keep)
    try:
        yield lambda: kept[0]
    finally:
        handle.remove()
