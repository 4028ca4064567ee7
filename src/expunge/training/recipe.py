"""How a model is first trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.registry import MODELS
from expunge.seeding import generator, global_generator
from expunge.training.cost import Meter
from expunge.training.loop import Progress, cross_entropy, fit, silent
from expunge.training.numerics import Numerics
from expunge.training.schedule import schedule_named


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """An optimiser by name; the defaults are the benchmark's.

    Args:
        name: "sgd", "adam" or "adamw".
        lr: learning rate, per step.
        momentum: of "sgd".
        weight_decay: L2 on every parameter ("adamw": decoupled).
    """

    name: str = "sgd"
    lr: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adam", "adamw"):
            raise InvalidInput(f"optimiser must be 'sgd', 'adam' or 'adamw', got {self.name!r}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise InvalidInput(f"the learning rate must be positive and finite, got {self.lr}")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise InvalidInput(
                f"momentum must lie in [0, 1) and weight decay be at least 0, got {self.momentum} and "
                f"{self.weight_decay}"
            )

    def over(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return a fresh optimiser over the model's trainable parameters."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            raise InvalidInput("no parameter requires a gradient; unfreeze what is to be trained")
        if self.name == "sgd":
            return torch.optim.SGD(
                parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        maker = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return maker(parameters, self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Architecture, optimiser, schedule and length of a first training.

    The defaults are those of CIFAR-10 / ResNet-9 in the REM benchmark: 4,000 steps of 512 are 41 epochs.

    Args:
        model: name in the table of models.
        model_settings: constructor arguments beside channels, size and n_classes.
        epochs: passes over the training set.
        batch_size: examples a step.
        optimiser: see :class:`Optimiser`.
        schedule: name of the learning-rate schedule.
        augment: train on augmented images.
    """

    model: str = "resnet9"
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 41
    batch_size: int = 512
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: str = "warmup_decay"
    augment: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise InvalidInput(
                f"epochs and batch size must be at least 1, got {self.epochs} and {self.batch_size}"
            )
        schedule_named(self.schedule)

    def build(self, shape: tuple[int, int, int], n_classes: int, source: torch.Generator) -> nn.Module:
        """Return a fresh model for images of ``shape`` (C, H, W), initialised from ``source``.

        Raises:
            UnknownName: no such model.
            InvalidInput: the model takes no such setting, or the images are not square.
        """
        factory = MODELS.get(self.model)
        channels, height, width = shape
        if height != width:
            raise InvalidInput(
                f"images must be square for {self.model}, got {height}x{width}; pad or crop them"
            )
        with global_generator(source):
            try:
                made: nn.Module = factory(
                    channels=channels, size=height, n_classes=n_classes, **self.model_settings
                )
            except TypeError as error:
                raise InvalidInput(
                    f"model {self.model!r} does not take the settings {dict(self.model_settings)}: {error}"
                ) from error
        return made

    def train(
        self,
        model: nn.Module,
        examples: Examples,
        seed: int,
        numerics: Numerics,
        meter: Meter,
        progress: Progress = silent,
    ) -> nn.Module:
        """Train ``model`` in place on the stored labels and return it; ``seed`` decides the order."""
        order = generator(seed, "order")
        steps = self.epochs * math.ceil(len(examples) / self.batch_size)
        numerics.place(model)
        fit(
            model,
            (examples.batches(self.batch_size, order, augment=self.augment) for _ in range(self.epochs)),
            cross_entropy,
            self.optimiser.over(model),
            numerics,
            meter,
            schedule=schedule_named(self.schedule),
            steps=steps,
            progress=progress,
        )
        return model
