"""What a model was trained on, with the names of its rows, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.examples import Examples, Source
from expunge.data.images import Augmentation
from expunge.errors import DataError, InvalidInput

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that models trained on ImageNet read their images with."""

NORMALISATIONS = ("data", "imagenet", "half", "none")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How training data is read; what does not concern a source is not looked at.

    Args:
        normalise: of uint8 images: "data" (mean and standard deviation per channel of the training
            images), "imagenet", "half" (0.5 and 0.5: pixels in [-1, 1]) or "none" (pixels in [0, 1]).
        mean: per channel, of pixels in [0, 1]; in place of ``normalise``, with ``std``. One number stands
            for all channels.
        std: per channel, of pixels in [0, 1].
        size: images are resized to this height and width in pixels, bilinear with antialiasing.
        crop: resize the shorter side, then cut out the centre; else both sides are resized.
        channels: 1 or 3; by default 1 where every image is grey, else 3.
        pad: random crop after padding by so many pixels, where a method augments.
        flip: random horizontal flip, where a method augments.
        classes: their names in the order of the model's logits; by default sorted, or as the data says.
        inputs: columns of a table that the model reads.
        label: column of a table that holds the labels.
        split: part of a data set of Hugging Face; by default "train".
        tokenizer: folder (or hub name) of the tokenizer that turns text into token ids.
        max_length: tokens at most in a text; by default what the tokenizer says.
        root: folder of the named data sets; by default $EXPUNGE_DATA.
        memory: bytes of images at most that are kept in memory; beyond, each is decoded when it is read.
        device: torch device the batches live on.

    Raises:
        InvalidInput: a value outside its range, or ``mean`` without ``std``.
    """

    normalise: str = "data"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    crop: bool = False
    channels: int | None = None
    pad: int = 0
    flip: bool = False
    classes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    tokenizer: str | None = None
    max_length: int | None = None
    root: Path | None = None
    memory: int = 4 * 2**30
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise InvalidInput(
                f"normalise must be one of {', '.join(NORMALISATIONS)}, got {self.normalise!r}; "
                "other values go into mean and std"
            )
        if (self.mean is None) != (self.std is None):
            raise InvalidInput("mean and std belong together: give both, or neither")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
                raise InvalidInput(
                    f"mean and std take 1 or 3 numbers each, got {len(self.mean)} and {len(self.std)}"
                )
            if min(self.std) <= 0:
                raise InvalidInput(f"std must be above 0, got {self.std}")
            if max(self.mean) > 1 or max(self.std) > 1:
                raise InvalidInput(
                    f"mean and std are of pixels in [0, 1], got {self.mean} and {self.std}; divide them by 255"
                )
        if self.channels not in (None, 1, 3):
            raise InvalidInput(f"channels must be 1 or 3, got {self.channels}")
        for name in ("size", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInput(f"{name} must be at least 1, got {value}")
        if self.crop and self.size is None:
            raise InvalidInput("crop cuts out the centre of a resized image: give size too")
        if self.pad < 0 or self.memory < 0:
            raise InvalidInput(f"pad and memory must be at least 0, got {self.pad} and {self.memory}")
        if len(set(self.classes)) < len(self.classes):
            raise InvalidInput(f"classes names one twice: {', '.join(self.classes)}")

    @property
    def reading(self) -> dict[str, Any]:
        """The options that decide what the model reads; where data lies and is kept is not among them."""
        elsewhere = ("root", "memory", "device")
        return {
            entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in elsewhere
        }

    @property
    def augmentation(self) -> Augmentation:
        """What an augmented batch goes through."""
        return Augmentation(self.pad, self.flip)


@dataclass(frozen=True)
class Inputs:
    """Inputs alone, as they were read.

    Args:
        source: reader of the inputs.
        notes: what was decided in reading, for the user.
        names: one per row, or empty.
        mean: what uint8 images are normalised by; empty for other inputs.
        std: the same.
    """

    source: Source
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class TrainingData:
    """Examples with what a user knows them by.

    Args:
        examples: inputs as the model reads them, with their stored labels.
        classes: one name per class, in the order of the logits.
        names: one per row where the rows have names (files relative to their folder), else empty.
        columns: further values of each row, for a forget list that is a column of the data.
        named_classes: whether ``classes`` are names, not the numbers up to the largest label.
        mean: what uint8 images are normalised by; empty for other inputs.
        std: the same.
        notes: what was decided in reading, for the user.
    """

    examples: Examples
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    named_classes: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, position: int) -> str:
        """What the row at ``position`` is called in messages."""
        return self.names[position] if self.names else f"row {position}"

    @property
    def sequences(self) -> bool:
        """Whether inputs are token ids, whose padded length is of no meaning."""
        return not next(self.examples.batches(1)).x.is_floating_point()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return tuple(next(self.examples.batches(1)).x.shape[1:])

    def with_n_classes(self, count: int) -> TrainingData:
        """Return the data for a model of ``count`` logits, where its classes are mere numbers.

        Integer labels do not say how many classes there are beyond the largest label.

        Raises:
            InvalidInput: the classes have names and are not ``count``, or a label does not fit.
        """
        have = len(self.classes)
        if count == have:
            return self
        if self.named_classes or count < have:
            shown = f" ({', '.join(self.classes)})" if self.named_classes and have <= 12 else ""
            raise InvalidInput(
                f"the model has {count} classes, but the data has {have}{shown}; give the data it was trained "
                "on, or all class names in the order of the model's logits (--classes)"
            )
        return replace(
            self,
            examples=replace(self.examples, n_classes=count),
            classes=tuple(str(label) for label in range(count)),
        )


def number_labels(
    found: Sequence[Any], classes: tuple[str, ...], where: str, names: tuple[str, ...] = ()
) -> tuple[Tensor, tuple[str, ...], bool]:
    """Return labels int64 (N,), the class names, and whether they are names rather than numbers.

    Whole numbers are classes as they are; text is numbered in the order of ``classes``, or sorted. Whole
    numbers that stand for ``names`` are text: in another order of ``classes`` they are renumbered.

    Raises:
        DataError: labels that are neither, negative ones, or one that ``classes`` lacks.
    """
    if any(value is None or value != value for value in found):
        row = next(i for i, value in enumerate(found) if value is None or value != value)
        raise DataError(f"{where}: row {row} has no label; give it one, or leave the row out")
    if names and not any(isinstance(value, str) for value in found):
        labels, _, _ = number_labels(found, names, where)
        if not classes or classes == names:
            return labels, names, True
        found = [names[label] for label in labels.tolist()]
    if all(isinstance(value, str) for value in found):
        names = classes or tuple(sorted(set(found)))
        index = {name: number for number, name in enumerate(names)}
        for row, value in enumerate(found):
            if value not in index:
                raise DataError(
                    f"{where}: row {row} has label {value!r}, which is none of the classes {', '.join(names)}; "
                    "correct the label or the classes"
                )
        return torch.tensor([index[value] for value in found], dtype=torch.int64), names, True
    for row, value in enumerate(found):
        # Class numbers that went through a table with gaps come back as floats.
        if isinstance(value, str) or int(value) != value:
            raise DataError(
                f"{where}: row {row} has label {value!r}, expected whole numbers from 0, or text in every row"
            )
    labels = torch.tensor([int(value) for value in found], dtype=torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise DataError(
            f"{where}: row {int(labels.argmin())} has label {low}, expected classes numbered from 0"
        )
    if high >= (len(classes) or len(labels)):
        expected = f"{len(classes)} classes were named" if classes else f"there are only {len(labels)} rows"
        raise DataError(
            f"{where}: row {int(labels.argmax())} has label {high}, but {expected}; number the classes 0, 1, 2, "
            "... in the order of the model's logits"
        )
    return labels, classes or tuple(str(label) for label in range(high + 1)), bool(classes)
