"""The record of a training by Lightning."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.recording.recording import Recording


def _callback() -> type:
    """Return the base class of the package that is in use: ``lightning``, or ``pytorch_lightning``."""
    packages = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(packages, key=lambda name: name not in sys.modules):
        try:
            found: type = importlib.import_module(name).Callback
        except ImportError:
            continue
        return found
    raise InvalidInput(
        "neither lightning nor pytorch_lightning can be imported; install the one you train with"
    )


class LightningRecording(_callback()):  # type: ignore[misc]
    """Callback for Lightning's ``Trainer`` that records wrong events and margins, and writes them at the end.

    ``Trainer(..., callbacks=[LightningRecording(labels, "recorded.safetensors", network="model")])``; see
    :class:`~expunge.recording.recording.Recording`. One process.

    Args:
        labels: (N,), the given labels of the training set, in its order.
        path: of the file, .safetensors.
        network: name of the submodule that returns the logits once a step; by default the module itself.
    """

    def __init__(self, labels: Sequence[int] | Tensor, path: Path | str, network: str = "") -> None:
        super().__init__()
        self.recording, self.network = Recording(labels, path), network

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Follow the data and watch the network."""
        network = pl_module.get_submodule(self.network)
        self.recording.watch(network, trainer.train_dataloader, trainer.world_size, _logits)

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Write what is known so far: a training may be stopped."""
        if not bool(self.recording.seen.any()):
            raise InvalidInput(
                f"no logits of {self.network or 'the module'!r} were seen in an epoch; name the submodule that "
                "training_step calls: network='model'"
            )
        self.recording.save()

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Let go of network and data."""
        self.recording.release()


def _logits(output: Any) -> Tensor | None:
    return output if isinstance(output, Tensor) else None
