"""The record of a training by the trainer of ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

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

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Follow the data and watch the network."""
        self.recording.watch(given["model"], given["train_dataloader"], args.world_size, _logits)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Write what is known so far: a training may be stopped."""
        self.recording.save()

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Write the file and let go of network and data."""
        self.recording.release()
        self.recording.save()


def _logits(output: Any) -> Any:
    if isinstance(output, dict):
        return output["logits"]
    # a tuple may begin with the loss and end with hidden states
    parts = [output] if isinstance(output, Tensor) else output
    return next(part for part in parts if isinstance(part, Tensor) and part.ndim == 2)
