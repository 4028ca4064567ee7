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
from expunge.registry import METHODS
from expunge.seeding import generator
from expunge.tasks.base import Split, Truth
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe


class Needs(Flag):
    """What a method reads; a request refuses everything else.

    Attributes:
        FORGET: the examples to be forgotten, with their stored labels.
        RETAIN: all other training examples, with their stored labels.
        RECIPE: how the model was first trained.
        TRUTH: what really happened to the data; oracles only.
        CLASSES: which classes are to be forgotten, and no example of them.
        CODES: the mnemonic codes the model was trained with.
        UNSEEN: examples the model was not trained on, apart from the test set.
    """

    NOTHING = 0
    FORGET = auto()
    RETAIN = auto()
    RECIPE = auto()
    TRUTH = auto()
    CLASSES = auto()
    CODES = auto()
    UNSEEN = auto()

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
        codes: float32 (n_classes, ...), one model-ready input per class that it was trained with.
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
        codes: torch.Tensor | None = None,
        progress: Progress = silent,
    ) -> None:
        self._split, self._recipe, self._truth, self._codes = split, recipe, truth, codes
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
        lacking = needs & ~self.available
        if lacking:
            raise InvalidInput(
                f"method {method!r} needs what this request does not have: "
                f"{'; '.join(_ABSENT[need] for need in Needs if need in lacking)}. Methods that would do: "
                f"{', '.join(suitable(self.available)) or 'none'}"
            )
        other = Request(
            self._split,
            seed=self.seed,
            numerics=self.numerics,
            recipe=self._recipe,
            truth=self._truth,
            codes=self._codes,
            progress=self.progress,
        )
        other._granted, other._method = needs, method
        return other

    @property
    def available(self) -> Needs:
        """Everything this request could grant."""
        found = Needs.FORGET | Needs.RETAIN
        for need, there in (
            (Needs.RECIPE, self._recipe is not None),
            (Needs.TRUTH, self._truth is not None),
            (Needs.CLASSES, bool(self._split.forget_classes)),
            (Needs.CODES, self._codes is not None),
            (Needs.UNSEEN, self._split.unseen is not None),
        ):
            if there:
                found |= need
        return found

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

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes to be forgotten, ascending; the forget set is all of their examples."""
        self._require(Needs.CLASSES)
        return self._split.forget_classes

    @property
    def codes(self) -> torch.Tensor:
        """Float32 (n_classes, ...): the mnemonic code of every class, as the model reads it."""
        self._require(Needs.CODES)
        assert self._codes is not None
        return self._codes

    @property
    def unseen(self) -> Examples:
        """Examples with labels that the model was not trained on; never the test set."""
        self._require(Needs.UNSEEN)
        assert self._split.unseen is not None
        return self._split.unseen

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

    A subclass sets ``name``, ``needs``, ``touches`` and ``reference`` and writes :meth:`unlearn`. Settings
    that ``expunge tune`` may search are fields made by :func:`searched`.

    Attributes:
        preparation: what the first training must have done for this method: "codes", "example_tied" or
            nothing.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    touches: ClassVar[str] = "all parameters"
    reference: ClassVar[Reference | None] = None
    preparation: ClassVar[str] = ""

    def check(self, model: nn.Module, request: Request) -> None:  # noqa: B027
        """Raise :class:`InvalidInput` if the method cannot work here; called before anything is done."""

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
        self.check(model, granted)
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
    def search_space(cls) -> dict[str, Search]:
        """Setting -> range that is searched, for the fields made by :func:`searched`."""
        return {
            entry.name: entry.metadata["search"]
            for entry in dataclasses.fields(cls)
            if "search" in entry.metadata
        }

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


@dataclass(frozen=True)
class Search:
    """The range in which a setting is searched: from ``low`` to ``high``, evenly in the logarithm if ``log``.

    Whole numbers are drawn where ``low`` is an ``int``.
    """

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g}{' (log)' if self.log else ''}"


def searched(default: Any, low: float, high: float, *, log: bool = False) -> Any:
    """A dataclass field with a default and the range in which ``expunge tune`` searches it."""
    return field(default=default, metadata={"search": Search(low, high, log)})


_ABSENT = {
    Needs.RECIPE: "the recipe the model was first trained by (recipe=Recipe(...))",
    Needs.TRUTH: "the truth about the data, which only an experiment knows",
    Needs.CLASSES: "a forget set that is every training example of some classes, and not of all",
    Needs.CODES: "the mnemonic codes the model was trained with (codes=...; they are saved with its checkpoint)",
    Needs.UNSEEN: "examples the model was not trained on (unseen=...)",
}


def suitable(available: Needs) -> list[str]:
    """Names of the methods that need no more than ``available``, oracles and preparations apart."""
    found = []
    for name in METHODS.names():
        kind = METHODS.get(name)
        if not kind.needs & ~available and kind.needs and not kind.preparation:
            found.append(name)
    return found
