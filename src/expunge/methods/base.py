"""The contract of an unlearning method: settings in, an unlearned model and its cost out."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import nn

from expunge.errors import Diverged, ExpungeError, InvalidInput
from expunge.methods.request import Found, Needs, Request
from expunge.seeding import global_generator
from expunge.settings import make_settings
from expunge.training.cost import Meter
from expunge.training.launch import launch
from expunge.training.numerics import Devices
from expunge.training.recipe import Recipe
from expunge.training.team import current_team

# What a method is written with comes from this one module.
__all__ = [
    "Found",
    "Method",
    "Needs",
    "Reference",
    "Request",
    "Search",
    "Unlearned",
    "chance_threshold",
    "positive",
    "searched",
]


@dataclass(frozen=True)
class Reference:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    where: str


@dataclass(frozen=True, repr=False)
class Unlearned:
    """The outcome of a method.

    Attributes:
        model: the unlearned model; the model that was passed in is untouched.
        method: the method with its settings.
        cost: seconds, sample gradients, peak memory, parameters before / during / after.
        found: what the method takes for bad beyond the forget set; ``None`` if it does not look.
        notes: sentences about what happened on the way: a lower learning rate, nothing to repair.
    """

    model: nn.Module
    method: Method
    cost: Meter
    found: Found | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = "" if self.found is None else f", {len(self.found.positions):,} flagged"
        gradients = f"{self.cost.sample_gradients:,} sample gradients"
        return f"<{type(self).__name__}: {self.method.name}, {self.cost.seconds:.3g} s, {gradients}{found}>"

    @property
    def log(self) -> list[dict[str, float]]:
        """One row per round or epoch."""
        return self.cost.log


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """An unlearning method; settings are its fields, the model and data arrive at the call.

    A subclass sets ``name``, ``needs``, ``touches`` and ``reference`` and writes :meth:`unlearn`. Settings
    that ``expunge tune`` may search are fields made by :func:`searched`.

    Args:
        recalibrate: estimate the normalisation statistics of the result anew on the retain set, whatever the method
            itself reads: without a gradient, and augmented as in the first training where that is known. Passes over
            the forget set alone leave statistics behind that can hide what the weights still know.

    Attributes:
        uses: what it reads where it is there, and works without.
        preparation: what the first training must have done for this method: "codes", "example_tied" or nothing.
        perturbs_inputs: whether it makes new inputs by changing given ones, which token ids do not allow.
        hides_only: whether it keeps a class from being answered and takes nothing out of the model.
        trains: whether it makes training steps, which several devices can share; any other method is carried
            out on one.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    uses: ClassVar[Needs] = Needs.NOTHING
    touches: ClassVar[str] = "all parameters"
    reference: ClassVar[Reference | None] = None
    preparation: ClassVar[str] = ""
    perturbs_inputs: ClassVar[bool] = False
    hides_only: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    recalibrate: bool = False

    def check(self, model: nn.Module, request: Request) -> None:  # noqa: B027
        """Raise :class:`InvalidInput` if the method cannot work here; called before anything is done."""

    def check_devices(self, devices: Devices) -> None:  # noqa: B027
        """Raise :class:`InvalidInput` if several devices cannot share the steps of this method."""

    @abstractmethod
    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Return the unlearned model; ``model`` is a copy that may be changed in place."""

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Expected work in passes over the training set, forward and backward; for estimates of time."""
        return 0.0

    def epochs_on(self, n_train: int, batch_size: int, recipe: Recipe | None) -> float:
        """Return the same on ``n_train`` examples in batches of ``batch_size``, where it depends on them."""
        return self.typical_epochs(recipe)

    @property
    def may_repeat(self) -> bool:
        """Whether the method does its work once more where its first result does not hold."""
        return False

    @property
    def oracle(self) -> bool:
        """Whether the method uses knowledge nobody has outside an experiment."""
        return Needs.TRUTH in self.needs

    @final
    def __call__(self, model: nn.Module, request: Request) -> Unlearned:
        """Check, copy, run, measure, check; on several devices, in a process for each, without progress.

        Raises:
            InvalidInput: a need is not met.
            UndeclaredNeed: the method read what it did not declare.
            Diverged: the result has parameters that are not finite.
        """
        granted = request.grant(self.name, self.needs, self.uses)
        if not any(True for _ in model.parameters()):
            raise InvalidInput(f"{type(model).__name__} has no parameters; there is nothing to unlearn")
        self.check(model, granted)
        if self.trains and request.numerics.devices.several and current_team() is None:
            self.check_devices(request.numerics.devices)
            return launch(request.numerics, self, model, request.silent())
        shapes = _shapes(model)
        working = request.numerics.place(copy.deepcopy(model))
        with granted.meter as meter:
            before = sum(parameter.numel() for parameter in model.parameters())
            meter.parameters = {"before": before, "during": before}
            # Dropout and initialisers draw from the global generator; the caller's is left as it was.
            with global_generator(_own_draws(request), request.numerics.device):
                result = self.unlearn(working, granted)
                if self.recalibrate:
                    request.recalibrate(result)
        meter.parameters["after"] = sum(parameter.numel() for parameter in result.parameters())
        if _shapes(result) != shapes:
            raise ExpungeError(
                f"method {self.name!r} returned a model with other parameter names or shapes than it was given"
            )
        _check_finite(result, self.name)
        for ours, theirs in zip(result.modules(), model.modules(), strict=True):
            ours.training = theirs.training
        for ours_, theirs_ in zip(result.parameters(), model.parameters(), strict=True):
            ours_.requires_grad_(theirs_.requires_grad)
            ours_.grad = None
        return Unlearned(result, self, meter, granted.found, tuple(granted.notes))

    def settings(self) -> dict[str, Any]:
        """The fields as a dictionary; ``recalibrate`` only where it is set: results without it keep their keys."""
        found = dataclasses.asdict(self)
        return (
            found
            if self.recalibrate
            else {name: value for name, value in found.items() if name != "recalibrate"}
        )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Setting -> default."""
        return {entry.name: entry.default for entry in dataclasses.fields(cls)}

    @classmethod
    def without_effect(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """Setting -> why it changes nothing where the others are ``settings`` and, for the rest, defaults."""
        return {}

    def refuse_without_effect(self) -> None:
        """Raise :class:`InvalidInput` for a setting that was set and changes nothing."""
        usual = self.defaults()
        for name, why in self.without_effect(self.settings()).items():
            if getattr(self, name) != usual[name]:
                raise InvalidInput(
                    f"{name}={getattr(self, name)} has no effect in {self.name!r}: {why}; leave it out"
                )

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
            InvalidInput: a value of the wrong type or outside its range.
        """
        return make_settings(cls, settings, f"method {cls.name!r}")


def _own_draws(request: Request) -> torch.Generator:
    # Several devices see different examples: each has its own dropout.
    team = current_team()
    return request.generator("global", *([] if team is None else [team.fabric.global_rank]))


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_finite(model: nn.Module, method: str) -> None:
    checked = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in checked.values()])
    for name, good in zip(
        checked, finite.tolist(), strict=True
    ):  # read at once: each reading waits for the device
        if not good:
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
