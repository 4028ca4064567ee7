"""The base of methods that train on with another loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from expunge.data.examples import Batch, Examples, batch_count
from expunge.methods.base import Method, Request, positive, searched
from expunge.training.loop import Objective, Progress, fit
from expunge.training.recipe import Optimiser
from expunge.training.schedule import schedule_named


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """Settings every gradient method shares; the defaults are those of the REM benchmark.

    Several devices can share the steps of its :meth:`fit`; a method whose objective is not what
    :func:`expunge.training.loop.fit` asks for then overrides :meth:`check_devices`.

    Args:
        lr: learning rate.
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: L2 on every parameter that is trained ("adamw": decoupled).
        augment: train on augmented inputs, where the data has an augmentation.
    """

    trains: ClassVar[bool] = True

    lr: float = searched(0.005, 5e-4, 0.1, log=True)
    batch_size: int = 512
    optimiser: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        self._optimiser()

    def _optimiser(self) -> Optimiser:
        return Optimiser(
            name=self.optimiser, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def optimiser_over(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return a fresh optimiser over the model's trainable parameters."""
        return self._optimiser().over(model)

    def batches(self, examples: Examples, order: torch.Generator) -> Iterable[Batch]:
        """One shuffled pass over ``examples``."""
        return examples.batches(self.batch_size, order, augment=self.augment)

    def fit(
        self,
        model: nn.Module,
        examples: Examples,
        objective: Objective,
        request: Request,
        *,
        epochs: int,
        schedule: str = "constant",
        optimizer: torch.optim.Optimizer | None = None,
        order: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> float:
        """Train ``model`` in place for ``epochs`` passes; return the last pass's mean loss.

        ``progress`` replaces the request's where this is one part of several.
        """
        order = order or request.generator("order")
        return fit(
            model,
            (self.batches(examples, order) for _ in range(epochs)),
            objective,
            optimizer or self.optimiser_over(model),
            request.numerics,
            request.meter,
            schedule=schedule_named(schedule),
            steps=epochs * batch_count(len(examples), self.batch_size),
            progress=progress or request.progress,
        )
