"""The record of a training by the trainer of ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from expunge.errors import InvalidInput
from expunge.recording.recording import Recording


class HuggingFaceRecording(TrainerCallback):
    """Callback for ``transformers.Trainer`` that records wrong events and margins, and writes them at the end.

    ``Trainer(..., callbacks=[HuggingFaceRecording(train_set["label"], "recorded.safetensors")])``; see
    :class:`~expunge.recording.recording.Recording`. One process.

    Args:
        labels: (N,), the given labels of the training set, in its order.
        path: of the file, .safetensors.
    """

    def __init__(self, labels: Sequence[int] | Tensor, path: Path | str) -> None:
        self.recording = Recording(labels, path)
        self._hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Follow the data and watch the network."""
        if args.world_size > 1:
            raise InvalidInput(
                f"a recording is made in one process, and there are {args.world_size}; leave the callback out"
            )
        self.recording.follow(given["train_dataloader"])
        self._hook = given["model"].register_forward_hook(self._see)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Write what is known so far: a training may be stopped."""
        self.recording.save()

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Write the file and let go of network and data."""
        self._hook.remove()
        self.recording.release()
        self.recording.save()

    def _see(self, model: nn.Module, inputs: Any, output: Any) -> None:
        if model.training and torch.is_grad_enabled():
            logits = output["logits"] if isinstance(output, dict) else output[-1]
            self.recording.see(logits)
