"""The contract of an unlearning method: settings, needs, request, result."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any, ClassVar, final

import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.errors import Diverged, ExpungeError, InvalidInput, UndeclaredNeed, UnknownName
from expunge.seeding import generator
from expunge.tasks.base import Split, Truth
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe


class Needs(Flag):
    """What a method reads; a request refuses everything else."""

    NOTHING = 0
    FORGET = auto()
    RETAIN = auto()
    RECIPE = auto()
    TRUTH = auto()

    def __str__(self) -> str:
        return ", ".join(part.name.lower() for part in Needs if part in self and part.name) or "nothing"


@dataclass(frozen=True)
class Reference:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    where: str


class Request:
    """What a method is given: the data it declared to need, a seed, and where to compute.

    Args:
        split: training examples and the forget set among them.
        seed: of everything random in the method.
        numerics: device, precision, memory format.
        recipe: how the model was first trained, if known.
        truth: what really happened to the data; for oracles.
        progress: receives the share of the work that is done.
    """

    def __init__(
        self,
        split: Split,
        *,
        seed: int,
        numerics: Numerics,
        recipe: Recipe | None = None,
        truth: Truth | None = None,
        progress: Progress = silent,
    ) -> None:
        self._split, self._recipe, self._truth = split, recipe, truth
        self._granted = Needs.NOTHING
        self._method = ""
        self.seed, self.numerics, self.progress = seed, numerics, progress
        self.n_classes = split.train.n_classes
        self.meter = Meter(numerics.device)

    def grant(self, method: str, needs: Needs) -> Request:
        """Return this request, cut to what ``method`` declared.

        Raises:
            InvalidInput: something is needed that this request does not have.
        """
        for need, value in ((Needs.RECIPE, self._recipe), (Needs.TRUTH, self._truth)):
            if need in needs and value is None:
                raise InvalidInput(
                    f"method {method!r} needs the {need!s} and none was given; pass one, or choose a method that "
                    "does without ('expunge list methods')"
                )
        other = Request(
            self._split,
            seed=self.seed,
            numerics=self.numerics,
            recipe=self._recipe,
            truth=self._truth,
            progress=self.progress,
        )
        other._granted, other._method = needs, method
        return other

    def _require(self, need: Needs) -> None:
        if need not in self._granted:
            raise UndeclaredNeed(
                f"method {self._method!r} reads '{need}' but declares only '{self._granted}'; add it to `needs`"
            )

    @property
    def forget(self) -> Examples:
        """The forget set with its stored labels."""
        self._require(Needs.FORGET)
        return self._split.forget

    @property
    def retain(self) -> Examples:
        """All that was not named, with its stored labels."""
        self._require(Needs.RETAIN)
        return self._split.retain

    @property
    def train(self) -> Examples:
        """The whole training set with its stored labels."""
        self._require(Needs.FORGET | Needs.RETAIN)
        return self._split.train

    @property
    def forget_mask(self) -> torch.Tensor:
        """Bool (N,) over :attr:`train`: the forget set."""
        self._require(Needs.FORGET)
        return self._split.forget_mask

    @property
    def recipe(self) -> Recipe:
        """How the model was first trained."""
        self._require(Needs.RECIPE)
        assert self._recipe is not None
        return self._recipe

    @property
    def truth(self) -> Truth:
        """What really happened to the data."""
        self._require(Needs.TRUTH)
        assert self._truth is not None
        return self._truth

    def generator(self, *roles: str | int) -> torch.Generator:
        """Return a fresh CPU generator for a role, derived from the seed."""
        return generator(self.seed, "unlearning", *roles)


@dataclass(frozen=True)
class Unlearned:
    """The outcome of a method.

    Attributes:
        model: the unlearned model; the model that was passed in is untouched.
        method: the method with its settings.
        cost: seconds, sample gradients, peak memory, parameters before / during / after.
    """

    model: nn.Module
    method: Method
    cost: Meter

    @property
    def log(self) -> list[dict[str, float]]:
        """One row per round or epoch."""
        return self.cost.log


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """An unlearning method; settings are its fields, the model and data arrive at the call.

    A subclass sets ``name``, ``needs``, ``touches`` and ``reference`` and writes :meth:`unlearn`.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    touches: ClassVar[str] = "all parameters"
    reference: ClassVar[Reference | None] = None

    @abstractmethod
    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the unlearned model; ``model`` is a copy that may be changed in place."""

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Expected work in passes over the training set, forward and backward; for estimates of time."""
        return 0.0

    @property
    def oracle(self) -> bool:
        """Whether the method uses knowledge nobody has outside an experiment."""
        return Needs.TRUTH in self.needs

    @final
    def __call__(self, model: nn.Module, request: Request) -> Unlearned:
        """Check, copy, run, measure, check.

        Raises:
            InvalidInput: a need is not met.
            UndeclaredNeed: the method read what it did not declare.
            Diverged: the result has parameters that are not finite.
        """
        granted = request.grant(self.name, self.needs)
        if not any(True for _ in model.parameters()):
            raise InvalidInput(f"{type(model).__name__} has no parameters; there is nothing to unlearn")
        shapes = _shapes(model)
        working = request.numerics.place(copy.deepcopy(model))
        with granted.meter as meter:
            before = sum(parameter.numel() for parameter in model.parameters())
            meter.parameters = {"before": before, "during": before}
            result = self.unlearn(working, granted)
        meter.parameters["after"] = sum(parameter.numel() for parameter in result.parameters())
        if _shapes(result) != shapes:
            raise ExpungeError(
                f"method {self.name!r} returned a model with other parameter names or shapes than it was given"
            )
        _check_finite(result, self.name)
        for (name, ours), (_, theirs) in zip(result.named_modules(), model.named_modules(), strict=True):
            del name
            ours.training = theirs.training
        for ours_, theirs_ in zip(result.parameters(), model.parameters(), strict=True):
            ours_.requires_grad_(theirs_.requires_grad)
            ours_.grad = None
        return Unlearned(result, self, meter)

    def settings(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def configured(cls, settings: Mapping[str, Any]) -> Method:
        """Return the method with some settings replaced.

        Raises:
            UnknownName: a setting the method does not have; the message lists those it has.
        """
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise UnknownName(
                    f"method {cls.name!r} has no setting {name!r} (settings: {', '.join(known) or 'none'})"
                )
        return cls(**settings)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_finite(model: nn.Module, method: str) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Diverged(
                f"method {method!r} left NaN or inf in {name!r}; lower its learning rate or its number of steps"
            )


def chance_threshold(n_classes: int) -> float:
    """Accuracy on the forget set at which it counts as removed: twice chance, 0.20 for ten classes."""
    return min(2 / n_classes, 0.5)


def positive(**values: float) -> None:
    """Raise :class:`InvalidInput` for the first value that is not a positive, finite number."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise InvalidInput(f"{name} must be positive and finite, got {value}")


def fraction(default: float) -> float:
    """A dataclass field for a share in [0, 1]; documents the range."""
    return field(default=default, metadata={"range": (0.0, 1.0)})
