"""How a model is first trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples, batch_count
from expunge.errors import InvalidInput, UnknownName
from expunge.registry import MODELS
from expunge.seeding import generator, global_generator
from expunge.training.cost import Meter
from expunge.training.launch import launch
from expunge.training.loop import Objective, Progress, cross_entropy, fit, silent
from expunge.training.numerics import Numerics
from expunge.training.preparations import ExampleTied, MnemonicCodes
from expunge.training.schedule import schedule_named
from expunge.training.team import current_team


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
            raise InvalidInput(f"optimiser must be 'sgd', 'adam' or 'adamw', got {self.name!r:.100}")
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
        codes: train with mnemonic codes; what one-shot unlearning needs.
        example_tied: train with example-tied dropout; what its unlearning needs.

    Raises:
        InvalidInput: a value outside its range, or two preparations at once.
    """

    model: str = "resnet9"
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 41
    batch_size: int = 512
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: str = "warmup_decay"
    augment: bool = True
    codes: MnemonicCodes | None = None
    example_tied: ExampleTied | None = None

    def __post_init__(self) -> None:
        if self.codes is not None and self.example_tied is not None:
            raise InvalidInput("a recipe has one preparation: give codes or example_tied, not both")
        if self.epochs < 1 or self.batch_size < 1:
            raise InvalidInput(
                f"epochs and batch size must be at least 1, got {self.epochs} and {self.batch_size}"
            )
        schedule_named(self.schedule)

    def prepared(self, preparation: str) -> Recipe:
        """Return the recipe with one preparation ("codes", "example_tied") or with none ("").

        Settings of that preparation which the recipe holds are kept; else it gets the defaults.

        Raises:
            UnknownName: no such preparation.
        """
        if preparation not in ("", "codes", "example_tied"):
            raise UnknownName(f"unknown preparation {preparation!r} (known: codes, example_tied)")
        return replace(
            self,
            codes=(self.codes or MnemonicCodes()) if preparation == "codes" else None,
            example_tied=(self.example_tied or ExampleTied()) if preparation == "example_tied" else None,
        )

    def draw_codes(self, seed: int, shape: tuple[int, ...], n_classes: int) -> Tensor | None:
        """Return the codes float32 (n_classes, *shape) that training with ``seed`` uses, if it uses any."""
        return None if self.codes is None else self.codes.draw(seed, n_classes, shape)

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
            return made if self.example_tied is None else self.example_tied.widen(made, source)

    def train(
        self,
        model: nn.Module,
        examples: Examples,
        seed: int,
        numerics: Numerics,
        meter: Meter,
        progress: Progress = silent,
        objective: Objective = cross_entropy,
    ) -> nn.Module:
        """Train ``model`` in place on the given labels and return it; ``seed`` decides the order.

        ``objective`` stands in for the mean cross-entropy, for example to record the losses. Several devices share
        the training, in a process for each and without progress.

        Raises:
            InvalidInput: an ``objective`` of the caller's own with example-tied dropout, which has its own, or with
                several devices, which do not hand it back.
            Diverged: the loss of an epoch is not finite.
        """
        if self.example_tied is not None:
            if objective is not cross_entropy:
                raise InvalidInput("example-tied dropout has an objective of its own; leave objective out")
            objective = self.example_tied.objective(seed)
        if numerics.devices.several and current_team() is None:
            if objective is not cross_entropy and self.example_tied is None:
                raise InvalidInput(
                    f"{numerics.devices.count} devices train in processes of their own, where an objective is a copy; "
                    "leave objective out, or pass a function that trains and reads it to "
                    "expunge.training.launch.launch"
                )
            state, gradients = launch(numerics, _train_there, self, model, examples, seed, numerics)
            model.load_state_dict(state)
            meter.count(gradients)
            return numerics.place(model)
        steps = self.epochs * batch_count(len(examples), self.batch_size)
        numerics.place(model)
        fit(
            model,
            self._epochs(examples, seed),
            objective,
            self.optimiser.over(model),
            numerics,
            meter,
            schedule=schedule_named(self.schedule),
            steps=steps,
            progress=progress,
        )
        return model

    def _epochs(self, examples: Examples, seed: int) -> Iterator[Iterable[Batch]]:
        order = generator(seed, "order")
        passes = (examples.batches(self.batch_size, order, augment=self.augment) for _ in range(self.epochs))
        if self.codes is None:
            return passes
        shape = tuple(next(examples.batches(1)).x.shape[1:])
        codes = self.codes.draw(seed, examples.n_classes, shape).to(examples.device)
        return (
            self.codes.mix(batches, codes, generator(seed, "code replacement", number))
            for number, batches in enumerate(passes)
        )


def _train_there(
    recipe: Recipe, model: nn.Module, examples: Examples, seed: int, numerics: Numerics
) -> tuple[dict[str, Tensor], int]:
    meter = Meter(numerics.device)
    return recipe.train(model, examples, seed, numerics, meter).state_dict(), meter.sample_gradients


@dataclass(frozen=True, kw_only=True)
class PartialRecipe(Recipe):
    """A recipe of which somebody stated a part; the other fields stand in for what is not known.

    Args:
        stated: names of the fields that were, those of the optimiser as "optimiser.lr".
    """

    stated: tuple[str, ...] = ()

    def plain(self) -> Recipe:
        """Return the same as a recipe that is simply followed."""
        return Recipe(**{each.name: getattr(self, each.name) for each in fields(Recipe)})


def rate_known(recipe: Recipe | None) -> bool:
    """Return whether the learning rate of ``recipe`` is that of the first training."""
    return recipe is not None and (not isinstance(recipe, PartialRecipe) or "optimiser.lr" in recipe.stated)
