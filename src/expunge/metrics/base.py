"""The contract of a metric, and the evaluated model it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.tasks.base import Problem, Truth
from expunge.training.loop import predict
from expunge.training.numerics import Numerics


class Evaluated:
    """A model on a problem: each named evaluation set is predicted once, when a metric first asks.

    Args:
        model: the model to be measured.
        problem: the task's data and truth.
        numerics: where to compute.
    """

    def __init__(self, model: nn.Module, problem: Problem, numerics: Numerics) -> None:
        self.problem = problem
        self.model, self.numerics = model, numerics
        self._logits: dict[str, Tensor] = {}

    @property
    def truth(self) -> Truth:
        """What really happened to the data."""
        return self.problem.truth

    def has(self, name: str) -> bool:
        """Whether the task has that evaluation set and it is not empty."""
        return len(self.truth.sets.get(name, ())) > 0

    def logits(self, name: str) -> Tensor:
        """Logits float32 (N, n_classes) on a named set, in evaluation mode."""
        if name not in self._logits:
            self._logits[name] = predict(self.model, self.truth.sets[name], self.numerics)
        return self._logits[name]

    def predicted(self, name: str) -> Tensor:
        """Predicted classes int64 (N,) on a named set; -1 where a logit is NaN."""
        return _classes(self.logits(name))

    def right(self, name: str) -> Tensor:
        """Bool (N,): prediction equals the true label."""
        return self.predicted(name) == self.truth.sets[name].labels

    def accuracy(self, name: str) -> float | None:
        """Accuracy on a named set, in [0, 1]; ``None`` where the task has no such set."""
        return float(self.right(name).double().mean()) if self.has(name) else None

    @cached_property
    def corruption_learned(self) -> float | None:
        """Share of corrupted training images predicted as their stored, wrong label; ``None`` without any."""
        if not len(self.truth.corrupted):
            return None
        corrupted = self.problem.split.train.select(self.truth.corrupted)
        predicted = _classes(predict(self.model, corrupted, self.numerics))
        return float((predicted == corrupted.labels).double().mean())


class Metric(ABC):
    """One measurement of an evaluated model.

    ``unit`` and ``better`` ("higher" or "lower") are read by tables and reports.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "fraction"
    better: ClassVar[str] = "higher"

    @abstractmethod
    def __call__(self, evaluated: Evaluated) -> float | None:
        """Return the value, or ``None`` where it is not defined."""


def _classes(logits: Tensor) -> Tensor:
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


def mean_right(evaluated: Evaluated, *names: str) -> float | None:
    """Accuracy over the union of named sets; ``None`` if all are empty."""
    parts = [evaluated.right(name) for name in names if evaluated.has(name)]
    return float(torch.cat(parts).double().mean()) if parts else None
