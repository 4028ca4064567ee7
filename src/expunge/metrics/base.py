"""The contract of a metric, and the evaluated model it reads."""

from __future__ import annotations

import copy
import math
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import Diverged, ExpungeError, InvalidInput
from expunge.seeding import generator
from expunge.tasks.base import Problem, Truth
from expunge.training.batchnorm import keeps_statistics, recalibrate
from expunge.training.loop import predict
from expunge.training.numerics import Numerics


class NotDefined(ExpungeError):
    """A metric has no value here; the message completes "not defined here, because ..."."""


UNDEFINED = (NotDefined, InvalidInput, Diverged)
"""Errors of a metric that become the reason why it is not defined."""


class Compares(Flag):
    """The other models that a metric reads beside the one it measures.

    Attributes:
        ORIGINAL: the model before unlearning.
        RETRAINED: one trained on the retain set alone, by the same recipe.
        ORACLE: one trained on everything with the true labels.
    """

    NOTHING = 0
    ORIGINAL = auto()
    RETRAINED = auto()
    ORACLE = auto()

    def __str__(self) -> str:
        return ", ".join(part.name.lower() for part in Compares if part in self and part.name) or "nothing"


class Scored(NamedTuple):
    """Predictions and labels of some examples: logits float32 (N, n_classes), labels int64 (N,)."""

    logits: Tensor
    labels: Tensor

    @property
    def predicted(self) -> Tensor:
        """Predicted classes int64 (N,); -1 where a logit is NaN."""
        return self.logits.argmax(1).masked_fill(self.logits.isnan().any(1), -1)


class Evaluated:
    """A model on a problem: each named evaluation set is predicted once, when a metric first asks.

    What it hands out is on the CPU: metrics compute in float64, which not every accelerator has.

    Args:
        model: the model to be measured.
        problem: the task's data and truth.
        numerics: where to compute.
        others: "original", "retrained", "oracle" -> that model on the same problem. Looked up when a metric
            asks, so that models may name each other.
        augment: whether the model was trained on augmented inputs; for :attr:`recalibrated`.
    """

    def __init__(
        self,
        model: nn.Module,
        problem: Problem,
        numerics: Numerics,
        others: Mapping[str, Evaluated] | None = None,
        *,
        augment: bool = False,
    ) -> None:
        self.problem, self.augment = problem, augment
        self.model, self.numerics = model, numerics
        self._others: Mapping[str, Evaluated] = {} if others is None else others
        self._logits: dict[str, Tensor] = {}

    @property
    def truth(self) -> Truth:
        """What really happened to the data."""
        return self.problem.truth

    @property
    def original(self) -> Evaluated:
        """The model before unlearning."""
        return self._other("original")

    @property
    def retrained(self) -> Evaluated:
        """A model trained on the retain set alone."""
        return self._other("retrained")

    @property
    def oracle(self) -> Evaluated:
        """A model trained on everything with the true labels."""
        return self._other("oracle")

    @cached_property
    def recalibrated(self) -> Evaluated:
        """The model with normalisation statistics of the retain set in place of its own, a copy.

        No gradient is needed: up to 20 batches of the retain set, augmented as in training, pass through the model.

        Raises:
            NotDefined: the model has no batch normalisation with running statistics, or fewer than two examples are
                retained.
        """
        retain = self.problem.split.retain
        if not keeps_statistics(self.model):
            raise NotDefined("the model has no batch normalisation, whose statistics could be estimated anew")
        if len(retain) < 2:
            raise NotDefined(f"statistics take at least 2 retained examples, there are {len(retain)}")
        model = copy.deepcopy(self.model)
        draw = generator(0, "recalibrated statistics")
        recalibrate(model, retain, self.numerics, generator=draw, augment=self.augment)
        return type(self)(model, self.problem, self.numerics, self._others, augment=self.augment)

    def _other(self, role: str) -> Evaluated:
        if role not in self._others:
            raise NotDefined(f"it compares with the {role} model, which is not given")
        other = self._others[role]
        if other.problem.n_classes != self.problem.n_classes:
            raise InvalidInput(
                f"the {role} model has {other.problem.n_classes} classes, the model measured "
                f"{self.problem.n_classes}; give models of the same task"
            )
        return other

    def has(self, name: str) -> bool:
        """Whether the task has that evaluation set and it is not empty."""
        return len(self.truth.sets.get(name, ())) > 0

    def examples(self, name: str) -> Examples:
        """Examples of a named set, without augmentation.

        Raises:
            NotDefined: the task has no such set, or it is empty.
        """
        if not self.has(name):
            raise NotDefined(f"the task has no examples in its set {name!r}")
        return self.truth.sets[name]

    def logits(self, name: str) -> Tensor:
        """Logits float32 (N, n_classes) on a named set, in evaluation mode."""
        if name not in self._logits:
            self._logits[name] = predict(self.model, self.examples(name), self.numerics).cpu()
        return self._logits[name]

    def scored(self, name: str) -> Scored:
        """Predictions and true labels of a named set."""
        return Scored(self.logits(name), self.examples(name).labels.cpu())

    @cached_property
    def _trained_logits(self) -> Tensor:
        return predict(self.model, self.problem.split.train, self.numerics).cpu()

    @property
    def forget(self) -> Scored:
        """Predictions and **stored** labels, those that were trained on, of the forget set."""
        return self._stored(self.problem.split.forget_mask)

    @property
    def retain(self) -> Scored:
        """Predictions and given labels of the retain set, undiscovered corruption included."""
        return self._stored(~self.problem.split.forget_mask)

    @property
    def test(self) -> Scored:
        """Predictions and labels of the clean test set."""
        return self.scored("test")

    def _stored(self, mask: Tensor) -> Scored:
        if not bool(mask.any()):
            raise NotDefined("the forget or the retain set is empty")
        mask = mask.cpu()
        return Scored(self._trained_logits[mask], self.problem.split.train.labels.cpu()[mask])

    def predicted(self, name: str) -> Tensor:
        """Predicted classes int64 (N,) on a named set; -1 where a logit is NaN."""
        return self.scored(name).predicted

    def right(self, name: str) -> Tensor:
        """Bool (N,): prediction equals the true label."""
        return self.predicted(name) == self.scored(name).labels

    def accuracy(self, *names: str) -> float:
        """Accuracy over the union of named sets, in [0, 1].

        Raises:
            NotDefined: none of the sets has an example.
        """
        parts = [self.right(name) for name in names if self.has(name)]
        if not parts:
            raise NotDefined(f"the task has no examples in {' or '.join(repr(name) for name in names)}")
        return float(torch.cat(parts).double().mean())

    @cached_property
    def corruption_learned(self) -> float | None:
        """Share of corrupted training images predicted as their stored, wrong label; ``None`` without any."""
        if not len(self.truth.corrupted):
            return None
        corrupted = self.problem.split.train.select(self.truth.corrupted)
        scored = Scored(predict(self.model, corrupted, self.numerics).cpu(), corrupted.labels.cpu())
        return float((scored.predicted == scored.labels).double().mean())


@dataclass(frozen=True)
class Value:
    """One number, with its 95 % interval where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


Better = Literal["higher", "lower", "reference"]


class Metric(ABC):
    """One measurement of an evaluated model.

    A subclass sets ``name`` and writes :meth:`__call__`, or :meth:`values` where it finds several numbers; both where
    the first alone costs less. An input that a formula cannot use (:class:`InvalidInput`) and a training that diverges
    are no errors here but reasons why a number is not defined.

    Attributes:
        unit: of the value; "fraction" is in [0, 1].
        better: "higher", "lower", or "reference": closer to what the retrained model (or, where data was
            corrupted, the oracle) scores.
        compares: the other models it reads.
        needs_population: whether it is read from many models of the method, which a sweep trains for it.
        source: where the definition comes from.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "fraction"
    better: ClassVar[Better] = "higher"
    compares: ClassVar[Compares] = Compares.NOTHING
    needs_population: ClassVar[bool] = False
    source: ClassVar[str] = ""

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the value.

        Raises:
            NotDefined: there is none for this task or model; the message says why.
            InvalidInput: the same, by a formula that cannot use what it got.
        """
        entry = self.values(evaluated)[self.name]
        if isinstance(entry, NotDefined):
            raise entry
        return entry.value

    def values(self, evaluated: Evaluated) -> Mapping[str, Value | NotDefined]:
        """Return every number by name, or why that one is not defined; the metric's own name comes first.

        Raises:
            NotDefined: the metric has no number at all here.
        """
        return {self.name: Value(self(evaluated))}


@dataclass(frozen=True)
class Measurement:
    """A number of a metric, or why there is none.

    Attributes:
        name: of the number.
        value: finite, or ``None`` where it is not defined.
        low: lower end of the 95 % interval, if known.
        high: its upper end.
        because: why the number is not defined here.
        metric: the metric that made it.
    """

    name: str
    metric: Metric
    value: float | None = None
    low: float | None = None
    high: float | None = None
    because: str = ""


def measure(metric: Metric, evaluated: Evaluated) -> list[Measurement]:
    """Return the numbers of a metric; one that is not defined, or not finite, becomes a reason."""
    try:
        found = metric.values(evaluated)
    except UNDEFINED as error:
        return [Measurement(metric.name, metric, because=str(error))]
    return [_measurement(name, metric, entry) for name, entry in found.items()]


def _measurement(name: str, metric: Metric, entry: Value | NotDefined) -> Measurement:
    if isinstance(entry, NotDefined):
        return Measurement(name, metric, because=str(entry))
    if not math.isfinite(entry.value):
        return Measurement(name, metric, because=f"the result is {entry.value}")
    return Measurement(name, metric, entry.value, entry.low, entry.high)


def value_or_reason(call: Callable[[], float]) -> Value | NotDefined:
    """Return what ``call`` returns as a value, or the reason it raises."""
    try:
        return Value(call())
    except UNDEFINED as reason:
        return NotDefined(str(reason))


def defined(call: Callable[[Evaluated], float], evaluated: Evaluated) -> float | None:
    """Return what ``call`` measures, ``None`` where it is not defined."""
    try:
        return call(evaluated)
    except UNDEFINED:
        return None
