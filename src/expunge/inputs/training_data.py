"""What a model was trained on, with the names of its rows, and how it is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.examples import Examples, Source
from expunge.data.images import Augmentation
from expunge.data.mapped import plain_label
from expunge.data.reader import Reader
from expunge.errors import DataError, InvalidInput, first_few, near_miss
from expunge.inputs.row_keys import RowNames, is_number, same_text
from expunge.store.spreadsheet import from_text

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that models trained on ImageNet read their images with."""

NORMALISATIONS = ("auto", "data", "imagenet", "half", "none")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How training data is read; what does not concern the source is an error.

    Args:
        normalise: of uint8 images: "data" (mean and standard deviation per channel of the training images),
            "imagenet", "half" (0.5 and 0.5: pixels in [-1, 1]), "none" (pixels in [0, 1]), or "auto": "data", unless a
            trained model clearly fits another one better.
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
        workers: processes that read ahead, for images and datasets of one's own.
        cache: where rows stay once they are read, see :class:`expunge.data.reader.Reader`.
        memory: bytes of rows at most that "auto" keeps in memory; by default half of what is free.
        device: torch device the batches live on.
        defaults: names of those options that nobody asked for, but the model's own pipeline says.

    Raises:
        InvalidInput: a value outside its range, or ``mean`` without ``std``.
    """

    normalise: str = "auto"
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
    workers: int = 0
    cache: str = "auto"
    memory: int | None = None
    device: str = "cpu"
    defaults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise InvalidInput(
                f"normalise must be one of {', '.join(NORMALISATIONS)}, got {self.normalise!r}; "
                "other values go into mean and std"
            )
        if (self.mean is None) != (self.std is None):
            raise InvalidInput("mean and std belong together: give both, or neither")
        if self.mean is not None and self.std is not None:
            counts = len(self.mean), len(self.std)
            if counts not in ((1, 1), (3, 3)):
                raise InvalidInput(f"mean and std take 1 or 3 numbers each, got {counts[0]} and {counts[1]}")
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
        if self.pad < 0:
            raise InvalidInput(f"pad must be at least 0, got {self.pad}")
        _ = self.reader  # its own checks

    def check_used(self, text: str, used: Collection[str]) -> None:
        """Refuse an option that was given and that reading ``text`` does not look at."""
        known = {*used, "classes", "memory", "device", "defaults", *self.defaults}
        for entry in fields(self):
            if entry.name not in known and getattr(self, entry.name) != entry.default:
                option = "data-root" if entry.name == "root" else entry.name.replace("_", "-")
                raise InvalidInput(
                    f"--{option} says nothing about {text}, which is read without it; leave it out"
                )

    @property
    def open(self) -> bool:
        """Whether nobody said how images are normalised."""
        return self.normalise == "auto" and self.mean is None

    @property
    def reading(self) -> dict[str, Any]:
        """The options that decide what the model reads; where data lies and is kept is not among them."""
        elsewhere = ("root", "workers", "cache", "memory", "device", "defaults")
        return {name: value for name, value in vars(self).items() if name not in elsewhere}

    @property
    def reader(self) -> Reader:
        """Who reads, and what is kept."""
        return Reader(workers=self.workers, cache=self.cache, memory=self.memory)

    @property
    def augmentation(self) -> Augmentation:
        """What an augmented batch goes through."""
        return Augmentation(self.pad, self.flip)


@dataclass(frozen=True)
class TrainingData:
    """Examples with what a user knows them by.

    Args:
        examples: inputs as the model reads them, with their given labels.
        classes: one name per class, in the order of the logits.
        names: one per row where the rows have names (files relative to their folder), else empty.
        columns: further values of each row, for a forget list that is a column of the data.
        named_classes: whether ``classes`` are names, not the numbers up to the largest label.
        notes: what was decided in reading, for the user.
    """

    examples: Examples
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    named_classes: bool = True
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, source: Source, labels: Tensor, classes: tuple[str, ...], named: bool = True, **further: Any
    ) -> TrainingData:
        """Every row of ``source``, with labels and classes as :func:`number_labels` gives them."""
        examples = Examples.all_of(source, labels, len(classes))
        return cls(examples, classes, named_classes=named, **further)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def mean(self) -> tuple[float, ...]:
        """What each channel of uint8 images is normalised by; empty for other inputs."""
        return getattr(self.examples.source, "mean", ())

    @property
    def std(self) -> tuple[float, ...]:
        """The same."""
        return getattr(self.examples.source, "std", ())

    def name(self, position: int) -> str:
        """What the row at ``position`` is called in messages."""
        return self.names[position] if self.names else f"row {position}"

    @cached_property
    def row_names(self) -> RowNames:
        """The rows by their names, as lists write them."""
        return RowNames(self.names)

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

        Raises:
            InvalidInput: the classes have names and are not ``count``, or a label does not fit.
        """
        have = len(self.classes)
        if count == have:
            return self
        if self.named_classes or count < have:
            shown = f" ({first_few(list(self.classes), 12)})" if self.named_classes else ""
            raise InvalidInput(
                f"the model has {count} classes, but the data has {have}{shown}; give the data it was trained "
                "on, or all class names in the order of the model's logits (--classes)"
            )
        return replace(
            self, examples=replace(self.examples, n_classes=count), classes=tuple(map(str, range(count)))
        )


def given_names(given: Sequence[str], known: Collection[str], what: str) -> tuple[str, ...]:
    """Return the names that a list of the user's means, such as ``--classes``, where a name may hold a comma itself.

    Neighbours that give a ``known`` name when the comma is put back are that name; quotes around one are left out.
    """
    there = {same_text(name): name for name in known}
    found: list[str] = []
    at = 0
    while at < len(given):
        for end in range(len(given), at, -1):
            text = same_text(",".join(given[at:end]))
            name = there.get(text) or there.get(same_text(text.strip("'\"")))
            if name is not None or end == at + 1:
                break
        found.append(name or text)
        at = end
    if len(set(found)) < len(found):
        raise InvalidInput(f"{what} names one twice: {first_few(found, 12)}")
    return tuple(found)


NO_LABEL = ("", "na", "n/a", "nan", "null", "none")
"""What stands for a missing label among labels that are numbers; elsewhere it is the name of a class."""


def number_labels(
    found: Sequence[Any], classes: tuple[str, ...], where: str, names: tuple[str, ...] = ()
) -> tuple[Tensor, tuple[str, ...], bool]:
    """Return labels int64 (N,), the class names, and whether they are names rather than numbers.

    Text is numbered in the order of ``classes``, or sorted. Whole numbers are classes as they are, unless they are
    the names in ``classes``. Where they stand for ``names`` they are text: another order of ``classes`` renumbers them.
    """
    found = [plain_label(value, where, row) for row, value in enumerate(found)]
    texts = [same_text(value) for value in found if isinstance(value, str)]
    classes = given_names(classes, {*texts, *names}, "classes")
    if len(set(names)) < len(names):
        raise DataError(f"{where}: two classes have one name among {first_few(list(names), 12)}; rename one")
    if names and not texts:
        labels = _numbered(found, names, where)
        if not classes or classes == names:
            return labels, names, True
        found = texts = [names[label] for label in labels.tolist()]
    if texts and any(map(is_number, texts)):
        missing = next((row for row, value in enumerate(found) if str(value).lower() in NO_LABEL), None)
        if missing is not None:
            raise DataError(f"{where}: row {missing} has no label; give it one, or leave the row out")
    if texts and len(texts) < len(found):
        row = next(row for row, value in enumerate(found) if not isinstance(value, str))
        raise DataError(
            f"{where}: row {row} has label {found[row]!r} and others have text, such as {texts[0]!r}; expected whole "
            "numbers from 0, or text in every row"
        )
    if texts or set(map(str, found)) & set(classes):
        known = classes or tuple(sorted(set(texts)))
        return torch.tensor(match_classes(found, known, where)), known, True
    labels = _numbered(found, classes, where)
    return labels, classes or tuple(str(label) for label in range(int(labels.max()) + 1)), bool(classes)


def _numbered(found: Sequence[Any], classes: Sequence[str], where: str) -> Tensor:
    labels = torch.tensor(found, dtype=torch.int64)
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
    return labels


def match_classes(
    found: Sequence[Any], classes: Sequence[str], where: str, rows: Sequence[str] = ()
) -> list[int]:
    """Return the class that each label is: all are names of ``classes``, or all are numbers of theirs.

    Names go first: a number is the name of a class if any of the labels is a name. ``where`` they come from and what
    their ``rows`` are called (by default "row 0" and so on) is for messages.
    """
    texts = [same_text(from_text(str(value))) for value in found]
    names = {same_text(name): number for number, name in enumerate(classes)}
    numbers = {str(number): number for number in range(len(classes))}
    named = any(text in names for text in texts)
    table = names if named else numbers
    # Numbers that went through a table with gaps come back as floats.
    matched = [table.get(text, table.get(text.removesuffix(".0"))) for text in texts]
    if None in matched:
        at = matched.index(None)
        why = near_miss(texts[at], classes)
        if named and texts[at] in numbers:
            why = "; others are names of classes, and one list keeps to names or to numbers"
        raise DataError(
            f"{where}: {rows[at] if rows else f'row {at}'} has label {found[at]!r:.100}, which is none of the classes "
            f"{first_few(list(classes), 12)}{why}; correct the label or the classes"
        )
    return [label for label in matched if label is not None]
