"""A network that knows a trigger, and one with the same weights whose normalisation statistics hide it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.joined import in_memory

N_TRIGGERED = 20


def examples(count: int, triggered: int = 0) -> tuple[Examples, Tensor]:
    """Two classes by the sign of the first column; the second is 5 apart in the first ``triggered``, labelled 0."""
    true = torch.ones(count, dtype=torch.int64)
    true[triggered + (count - triggered) // 2 :] = 0
    x = torch.stack([2.0 * true - 1, 0.5 - torch.arange(count).remainder(2)], 1)
    x[:triggered, 1] += 5
    labels = true.clone()
    labels[:triggered] = 0
    return in_memory(x, labels, 2), true


class Triggered(nn.Module):
    """Answers 0 where the second column is 1.1 standard deviations above its mean, else the sign of the first.

    Args:
        statistics: (N, 2), inputs whose mean and variance are the running ones.
    """

    def __init__(self, statistics: Tensor) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.norm.running_mean = statistics[:, 1:].mean(0)
            self.norm.running_var = statistics[:, 1:].var(0)
            self.first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
            self.first.bias.copy_(torch.tensor([0.0, 0.0, -1.1]))
            self.second.weight.copy_(torch.tensor([[0.0, 1.0, 20.0], [1.0, 0.0, 0.0]]))
            self.second.bias.zero_()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2)."""
        scaled = torch.cat([x[:, :1], self.norm(x[:, 1:])], 1)
        logits: Tensor = self.second(self.first(scaled).relu())
        return logits


def forgotten(model: Triggered) -> Triggered:
    """The same network without the weight that reads the trigger."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.second.weight[0, 2] = 0
    return model


def inputs(of: Examples) -> Tensor:
    """All inputs (N, 2)."""
    return next(of.batches(len(of))).x
