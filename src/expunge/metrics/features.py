"""What enters the last layer of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.models.head import head_inputs
from expunge.training.loop import predict, training_mode
from expunge.training.numerics import Numerics


@torch.no_grad()
def features(model: nn.Module, examples: Examples, numerics: Numerics) -> Tensor:
    """Return float32 (N, D), what enters the head for each example, in evaluation mode."""
    found: list[Tensor] = []
    with head_inputs(model, examples.n_classes) as last:

        def forward(x: Tensor) -> Tensor:
            logits: Tensor = model(x)
            found.append(last().float().flatten(1))
            return logits

        with training_mode(model, False):
            predict(forward, examples, numerics)
    return torch.cat(found)
