"""What a method may see (split), what only the evaluation may see (truth), and both together (problem)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from expunge.data.examples import Examples
from expunge.data.images import ImageData
from expunge.errors import InvalidInput


@dataclass(frozen=True)
class Split:
    """What was trained on and which part of it is named.

    Args:
        train: every training example with its given label, corruption included.
        forget_positions: int64 (F,), sorted positions in ``train`` of the forget set.
        unseen: examples that were not trained on, for the methods that need some; never the test set.
    """

    train: Examples
    forget_positions: Tensor
    unseen: Examples | None = None

    @property
    def forget(self) -> Examples:
        """The forget set: the discovered examples."""
        return self.train.select(self.forget_positions)

    @property
    def retain(self) -> Examples:
        """All that was not named; it may hold corruption that nobody found."""
        return self.train.select(~self.forget_mask)

    @cached_property
    def forget_classes(self) -> tuple[int, ...]:
        """The classes all of whose training examples are in the forget set, if it is made of such, else none."""
        mask, labels = self.forget_mask, self.train.labels
        inside = torch.bincount(labels[mask], minlength=self.train.n_classes)
        outside = torch.bincount(labels[~mask], minlength=self.train.n_classes)
        if bool(((inside > 0) & (outside > 0)).any()):
            return ()
        return tuple(inside.nonzero().flatten().tolist())

    @property
    def forget_mask(self) -> Tensor:
        """Bool (N,) over ``train``."""
        mask = torch.zeros(len(self.train), dtype=torch.bool, device=self.train.device)
        mask[self.forget_positions.to(mask.device)] = True
        return mask


def _no_positions() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What really happened to the data. For evaluation and for methods labelled as oracles.

    Args:
        true_labels: int64 (N,), of the training set.
        stamped: bool (N,), which training images carry the trigger.
        sets: named evaluation sets with true labels, in a fixed order, without augmentation.
        corrupted: int64 (M,), sorted positions in the training set.
        known: the discovered part of ``corrupted``.
        unknown: the rest of it.
        target_class: the label poisoned images were given, if any were.
        swapped: the two classes whose labels were exchanged, or none.
    """

    true_labels: Tensor
    stamped: Tensor
    sets: Mapping[str, Examples]
    corrupted: Tensor = field(default_factory=_no_positions)
    known: Tensor = field(default_factory=_no_positions)
    unknown: Tensor = field(default_factory=_no_positions)
    target_class: int | None = None
    swapped: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What is to be forgotten: settings that :meth:`build` carries out on a data set.

    A subclass sets ``kind`` and writes :meth:`check` and :meth:`build`.

    Attributes:
        kind: its name in the table of tasks.
        needs_difficulty: whether :meth:`build` needs the mean training loss of every example.
        on_map: whether its cells are places on the map; then it has the settings ``regularity`` and ``discovery``.
        corrupts: whether training examples are corrupted, so that a model trained on the true labels is an oracle.
        forgets_to_chance: whether a model that forgot answers the forget set by chance, not as it answers unseen data.

    Args:
        seed: of what is drawn at random.
    """

    kind: ClassVar[str]
    needs_difficulty: ClassVar[bool] = False
    on_map: ClassVar[bool] = False
    corrupts: ClassVar[bool] = False
    forgets_to_chance: ClassVar[bool] = False

    seed: int = 0

    @abstractmethod
    def check(self, data: ImageData) -> None:
        """Raise :class:`InvalidInput` unless the task can be carried out on ``data``."""

    @abstractmethod
    def build(self, data: ImageData, difficulty: Tensor | None = None) -> Problem:
        """Carry the task out; ``difficulty`` is float (N,), the mean training loss of each image."""

    def concept(self, data: ImageData) -> tuple[Tensor, Tensor] | None:
        """Masks over the test images, bool (M,): the forgotten concept and its siblings; ``None`` for samples."""
        return None

    def renumbered(self, kept: Tensor) -> Task:
        """Return the task for a data set of which only the images at the positions ``kept``, int64 (K,), are left."""
        return self

    def tuning_score(self, forget: float, validation: float, siblings: float | None, chance: float) -> float:
        """Return how good a trial of ``expunge tune`` is, in [0, 1]: V (1 - d).

        V is the accuracy on validation images. d is |A - E|, accuracy A on the forget set and E on the siblings of its
        concept, or on the validation images; where the model is to forget to chance c, d = max(0, A - c) / (1 - c).
        """
        if self.forgets_to_chance:
            return validation * (1 - max(0.0, forget - chance) / (1 - chance))
        return validation * (1 - abs(forget - (validation if siblings is None else siblings)))


@dataclass(frozen=True)
class Problem:
    """A task carried out on a data set.

    Args:
        split: what a method may see.
        truth: what the evaluation sees.
        shape: (C, H, W) of an input.
        training_key: content hash of what the original model is trained on; the same for every discovery rate.
        key: content hash of the whole problem, seed and settings included.
    """

    split: Split
    truth: Truth
    shape: tuple[int, int, int]
    training_key: str
    key: str

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.split.train.n_classes

    def tensors(self) -> dict[str, Tensor]:
        """Everything drawn at random, to be stored: labels, corruption, discovery."""
        return {
            "labels": self.split.train.labels,
            "true_labels": self.truth.true_labels,
            "corrupted": self.truth.corrupted,
            "known": self.truth.known,
            "stamped": self.truth.stamped,
        }


def check_forget(positions: Tensor, count: int) -> Tensor:
    """Return ``positions`` sorted; raise unless they are a proper, non-empty subset of ``0..count-1``.

    Raises:
        InvalidInput: no position, one given twice, one out of range, or all of the data.
    """
    positions = positions.cpu().reshape(-1)
    if len(positions) == 0:
        raise InvalidInput(
            "the forget set is empty: name at least one example to forget; to look for bad ones is the work of "
            "'expunge find'"
        )
    if positions.dtype == torch.bool:
        if len(positions) != count:
            raise InvalidInput(
                f"a boolean forget mask must have one entry for each of the {count} examples, got {len(positions)}"
            )
        return check_forget(positions.nonzero().flatten(), count)
    if positions.is_floating_point() or positions.is_complex():
        raise InvalidInput(f"forget indices must be integers, got {positions.dtype}")
    positions = positions.to(torch.int64)
    outside = positions[(positions < 0) | (positions >= count)]
    if len(outside):
        raise InvalidInput(
            f"forget indices must lie in 0..{count - 1}, but {len(outside)} do not (the first is "
            f"{int(outside[0])}); number the examples from 0 in the order of the training set"
        )
    unique: Tensor
    unique, times = torch.unique(positions, return_counts=True)
    if len(unique) < len(positions):
        twice = unique[times > 1]
        raise InvalidInput(
            f"{len(positions) - len(unique)} forget indices are repeated (the first is {int(twice[0])}); "
            "name each example once"
        )
    if len(unique) == count:
        raise InvalidInput(
            f"the forget set is all of the {count} training examples; nothing would remain. "
            "Train a new model on other data instead"
        )
    return unique
