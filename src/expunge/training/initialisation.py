"""Drawing a network's parameters anew."""

from __future__ import annotations

import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.seeding import global_generator


def reinitialise(model: nn.Module, source: torch.Generator) -> None:
    """Reset every parameter and running statistic of ``model`` in place, drawing from ``source``.

    A network with ``reset_parameters`` of its own is reset by it, else every module that has one is.

    Raises:
        InvalidInput: a module owns parameters and cannot reset them; the message names it.
    """
    own = getattr(model, "reset_parameters", None)
    with global_generator(source):
        if callable(own):
            own()
            return
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise InvalidInput(
                    f"{type(module).__name__} {name or '(the model itself)'!r} owns parameters but has no "
                    "reset_parameters(); give it one, or retrain a fresh model yourself"
                )
