"""What a method may ask for and what it is given."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto

import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput, UndeclaredNeed
from expunge.registry import METHODS
from expunge.seeding import generator
from expunge.tasks.base import Split, Truth
from expunge.training.batchnorm import recalibrate
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe


class Needs(Flag):
    """What a method reads; a request refuses everything else.

    Attributes:
        FORGET: the examples to be forgotten, with their given labels.
        RETAIN: all other training examples, with their given labels.
        RECIPE: how the model was first trained.
        TRUTH: what really happened to the data; oracles only.
        CLASSES: which classes are to be forgotten, and no example of them.
        CODES: the mnemonic codes the model was trained with.
        UNSEEN: examples the model was not trained on, apart from the test set.
        START: the weights the first training began from, or an earlier checkpoint of it.
    """

    NOTHING = 0
    FORGET = auto()
    RETAIN = auto()
    RECIPE = auto()
    TRUTH = auto()
    CLASSES = auto()
    CODES = auto()
    UNSEEN = auto()
    START = auto()

    def __str__(self) -> str:
        return ", ".join(part.name.lower() for part in Needs if part in self and part.name) or "nothing"


@dataclass(frozen=True)
class Found:
    """Examples beyond the forget set that a method takes for bad as well.

    Attributes:
        positions: int64 (K,), positions in the training set, the most suspicious first.
        scores: float32 (N,), over the training set; higher is more suspicious.
        false_discovery: the share of ``positions`` that the method itself expects to be good, in [0, 1].
    """

    positions: torch.Tensor
    scores: torch.Tensor
    false_discovery: float


class Request:
    """What a method is given: the data it declared to need, a seed, and where to compute.

    Args:
        split: training examples and the forget set among them.
        seed: of everything random in the method.
        numerics: device, precision, memory format.
        recipe: how the model was first trained, if known.
        truth: what really happened to the data; for oracles.
        codes: float32 (n_classes, ...), one model-ready input per class that it was trained with.
        start: state of the model that the first training began from (pretrained weights, or an earlier
            checkpoint), parameters by name; those that it does not have count as freshly initialised.
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
        start: Mapping[str, torch.Tensor] | None = None,
        progress: Progress = silent,
    ) -> None:
        self._split, self._recipe, self._truth, self._codes = split, recipe, truth, codes
        self._start = start
        self._granted = Needs.NOTHING
        self._method = ""
        self.seed, self.numerics, self.progress = seed, numerics, progress
        self.n_classes = split.train.n_classes
        self.meter = Meter(numerics.device)
        self.found: Found | None = None
        self.notes: list[str] = []

    def grant(self, method: str, needs: Needs, uses: Needs = Needs.NOTHING) -> Request:
        """Return this request, cut to what ``method`` declared: what it needs, and what it uses where that is there.

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
        other = self._with_progress(self.progress)
        other._granted, other._method = needs | (uses & self.available), method
        return other

    def recalibrate(self, model: nn.Module) -> None:
        """Give ``model``, in place, the normalisation statistics of the retain set, which the method need not see."""
        augment = self._recipe is not None and self._recipe.augment
        draw = self.generator("recalibration")
        recalibrate(model, self._split.retain, self.numerics, generator=draw, augment=augment)

    def silent(self) -> Request:
        """Return this request without its callback, so that it can be handed to another process."""
        return self._with_progress(silent)

    def _with_progress(self, progress: Progress) -> Request:
        other = copy.copy(self)
        other.progress, other.meter = progress, Meter(self.numerics.device)
        other.found, other.notes = None, []
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
            (Needs.START, self._start is not None),
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
        """The forget set with its given labels."""
        self._require(Needs.FORGET)
        return self._split.forget

    @property
    def retain(self) -> Examples:
        """All that was not named, with its given labels."""
        self._require(Needs.RETAIN)
        return self._split.retain

    @property
    def train(self) -> Examples:
        """The whole training set with its given labels."""
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
    def known_recipe(self) -> Recipe | None:
        """How the model was first trained, if that is known; for methods that declare to use it."""
        return self.recipe if Needs.RECIPE in self._granted else None

    @property
    def start(self) -> Mapping[str, torch.Tensor] | None:
        """The weights the first training began from, if they are known; for methods that declare to use them."""
        return self._start if Needs.START in self._granted else None

    def note(self, text: str) -> None:
        """Keep a sentence for the user about what happened on the way."""
        self.notes.append(text)

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
    def whole_classes(self) -> bool:
        """Whether the forget set is every training example of some classes."""
        self._require(Needs.FORGET | Needs.RETAIN)
        return bool(self._split.forget_classes)

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

    def stage(self, begin: float, end: float) -> Progress:
        """Return a progress callback for the part of the work between ``begin`` and ``end``, shares of the whole."""
        return lambda share: self.progress((1 - share) * begin + share * end)


_ABSENT = {
    Needs.RECIPE: "the recipe the model was first trained by (recipe=Recipe(...))",
    Needs.TRUTH: "the truth about the data, which only an experiment knows",
    Needs.CLASSES: "a forget set that is every training example of some classes, and not of all",
    Needs.CODES: "the mnemonic codes the model was trained with (codes=...; they are saved with its checkpoint)",
    Needs.UNSEEN: "examples the model was not trained on (unseen=...)",
    Needs.START: "the weights the first training began from (base=...), or an earlier checkpoint (earlier=...)",
}


def suitable(available: Needs) -> list[str]:
    """Names of the methods that need no more than ``available``, oracles and preparations apart."""
    found = []
    for name in METHODS.names():
        kind = METHODS.get(name)
        if not kind.needs & ~available and kind.needs and not kind.preparation:
            found.append(name)
    return found
