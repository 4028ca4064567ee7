"""The names under which ``transformers`` stores a model's tensors, where they differ from the module's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from expunge.optional import load_extra


def published_names(model: nn.Module) -> dict[str, str]:
    """Return stored name -> name in the module, for a model of ``transformers``; empty for any other.

    Since version 5 the library renames layers when it reads or writes a file, so that old checkpoints fit
    new modules. It is asked for the names by having it save one numbered value for each tensor. A model
    whose tensors it also splits or joins has no such names: the result is empty.
    """
    if not (hasattr(model, "save_pretrained") and hasattr(model, "config")):
        return {}
    saver: Any = model
    own = list(model.state_dict())
    # The library drops tensors that are equal in storage, so each has its own.
    marks = {name: torch.tensor([number], dtype=torch.float64) for number, name in enumerate(own)}
    with tempfile.TemporaryDirectory() as folder, _unchanged(model), _quiet():
        try:
            saver.save_pretrained(folder, state_dict=marks)
            stored = load_file(Path(folder, "model.safetensors"))
        # What the library does with a model of its own is not ours to foresee; without names the
        # checkpoint is compared with the module's.
        except Exception:
            return {}
    if any(tensor.shape != (1,) for tensor in stored.values()):
        return {}
    return {name: own[int(tensor.item())] for name, tensor in stored.items()}


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Saving writes the dtype and the class into the configuration."""
    before = dict(vars(model.config))
    try:
        yield
    finally:
        vars(model.config).clear()
        vars(model.config).update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    logging = load_extra("transformers.utils.logging", "transformers", "text", "this model")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
