"""Digits with corruption that is known, and a module of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from expunge.data.digits import load_digits
from expunge.data.examples import Examples
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics

NUMERICS = Numerics(channels_last=False)


@dataclass(frozen=True)
class Planted:
    """Digits with corruption that is known."""

    examples: Examples
    true_labels: Tensor
    bad: Tensor
    shape: tuple[int, int, int]


@lru_cache
def planted(regularity: float, n_corrupted: int = 100) -> Planted:
    """Random label noise (0), two classes swapped (0.5), or a poison patch of class 0 (1)."""
    data = load_digits()
    task = CorruptionTask(regularity=regularity, n_corrupted=n_corrupted, patch=2)
    problem = task.build(data)
    bad = torch.zeros(len(data.train_labels), dtype=torch.bool)
    bad[problem.truth.corrupted] = True
    return Planted(problem.split.train, data.train_labels, bad, data.shape)


def two_layers(inputs: int = 64, hidden: int = 64, classes: int = 10) -> nn.Module:
    """A module of the user's own."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
