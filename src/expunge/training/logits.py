"""Whether a model returns logits, in evaluation and in training mode."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError, InvalidInput
from expunge.training.loop import first_output, training_mode
from expunge.training.numerics import Numerics


@dataclass(frozen=True)
class Answer:
    """What a model returns for a batch of B inputs: logits (B, n_logits).

    Args:
        n_logits: number of classes of the model.
        repeatable: whether it gives the same logits again in evaluation mode.
        several: what it returns in training mode where that is more than the logits, which then come first; else
            empty.
    """

    n_logits: int
    repeatable: bool
    several: str = ""


def check_logits(model: nn.Module, x: Tensor, numerics: Numerics | None = None) -> Answer:
    """Run the model twice in evaluation mode, and a copy of it on batches of 2 and 3 in training mode.

    Args:
        model: it stays untouched.
        x: some inputs (B, ...), at least one.
        numerics: where it computes; by default where its parameters are, in float32.

    Raises:
        InvalidInput: it cannot read ``x``, or returns something else than logits.
    """
    if numerics is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        numerics = Numerics(str(device), channels_last=False)
    with training_mode(model, False):
        outputs, again = (_run(model, x, numerics, "") for _ in range(2))
    if not _are_logits(outputs, len(x)):
        raise InvalidInput(
            f"the model returns {_said(outputs)} for {len(x)} inputs, expected logits ({len(x)}, C); wrap it in a "
            "module that returns the logits alone"
        )
    several = ""
    # Dropout draws from the global generator, which is the caller's.
    with torch.random.fork_rng(devices=[] if x.device.type == "cpu" else None):
        twin = copy.deepcopy(model).train()
        for size in (2, 3):
            rows = torch.arange(size, device=x.device) % len(x)
            trained = _run(twin, x[rows], numerics, " in training mode")
            first = first_output(twin, (), trained)
            if not _are_logits(first, size) or first.shape[1] != outputs.shape[1]:
                raise InvalidInput(
                    f"the model returns {_said(trained)} for {size} inputs in training mode, but {outputs.shape[1]} "
                    "logits in evaluation mode; return the logits first in both"
                )
            several = "" if first is trained else _said(trained)
    return Answer(outputs.shape[1], torch.allclose(outputs, again, equal_nan=True), several)


def _run(model: nn.Module, x: Tensor, numerics: Numerics, how: str) -> Any:
    try:
        with torch.no_grad(), numerics.autocast():
            return model(numerics.place_inputs(x))
    # A user's own module can fail in any way.
    except Exception as error:
        what = str(error) if isinstance(error, ExpungeError) else f"{type(error).__name__}: {error}"
        kind = str(x.dtype).removeprefix("torch.")
        raise InvalidInput(
            f"the model cannot read inputs of shape {tuple(x.shape[1:])}, {kind}{how}: {what:.600}; give the data as "
            "the model reads it (--size, --channels, --inputs or --tokenizer), or the architecture with other settings"
        ) from error


def _are_logits(outputs: Any, count: int) -> bool:
    return (
        isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == count and outputs.shape[1] > 0
    )


def _said(outputs: Any) -> str:
    if isinstance(outputs, Tensor):
        return str(tuple(outputs.shape))
    return (
        f"a {type(outputs).__name__} of {len(outputs)}"
        if hasattr(outputs, "__len__")
        else type(outputs).__name__
    )
