"""A user's own data set, of items (input, label), as examples."""

from __future__ import annotations

import contextlib
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from expunge.data.examples import Examples, check_not_empty
from expunge.data.reader import Plan, Reader, in_order
from expunge.errors import DataError
from expunge.seeding import derive_seed, global_state, own_global_draws, sent

T = TypeVar("T")

_INPUTS = ("input", "inputs", "x", "image", "pixel_values", "input_ids", "features")
_LABELS = ("label", "labels", "y", "target")


class _Pairs:
    """A dataset whose items are dictionaries, as one of (input, label) pairs."""

    def __init__(self, dataset: Any, inputs: Any, label: Any) -> None:
        self.dataset, self._input, self._label = dataset, inputs, label

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        item = self.dataset[row]
        return item[self._input], item[self._label]


def as_pairs(dataset: Any, inputs: str | None = None, label: str | None = None) -> Any:
    """Return a map-style dataset whose items are (input, label, ...); dictionaries are read by the usual names.

    ``inputs`` and ``label`` name the entries of dictionaries where they have other names.

    Raises:
        DataError: no map-style dataset, an empty one, an item that cannot be read, or dictionaries without
            these entries.
    """
    by_row = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not by_row or isinstance(dataset, IterableDataset | Mapping | str):
        raise DataError(
            f"a map-style dataset (with __getitem__ and __len__) is expected, got {type(dataset).__name__}; "
            "the examples to forget are picked by their number"
        )
    check_not_empty(dataset)
    first = _item(dataset, 0)
    if not isinstance(first, Mapping):
        _label(first, "the dataset", 0)
        return dataset
    inputs = inputs or next((name for name in _INPUTS if name in first), None)
    label = label or next((name for name in _LABELS if name in first), None)
    if inputs in first and label in first:
        return _Pairs(dataset, inputs, label)
    name, option = (label, "label") if inputs in first else (inputs, "inputs")
    raise DataError(
        f"items of the dataset hold {', '.join(map(str, list(first)[:8]))}, but no {name or option!r}; name the "
        f"entry with --{option}, or return (input, label) pairs"
    )


def _item(dataset: Any, row: int) -> Any:
    try:
        return dataset[row]
    # A user's own dataset can fail in any way.
    except Exception as error:
        raise DataError(
            f"item {row} of the dataset cannot be read: {type(error).__name__}: {error}"
        ) from error


def item_input(item: Any, row: int) -> Tensor:
    """Return the input of an (input, label, ...) item as a dense tensor that a model can read."""
    try:
        tensor = torch.as_tensor(item[0])
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        what = type(item[0]).__name__ if isinstance(item, Sequence) and len(item) else type(item).__name__
        raise DataError(
            f"input {row} is a {what}, expected a tensor as the model reads it; apply the transform of your evaluation "
            "in the dataset"
        ) from error
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
        kind = "complex" if tensor.is_complex() else "meta" if tensor.is_meta else str(tensor.layout)
        raise DataError(f"input {row} is a {kind} tensor, expected a dense one of real numbers; convert it")
    return tensor


def check_input(x: Tensor, row: int, shape: torch.Size, first: int = 0) -> None:
    """Raise :class:`DataError` unless the input of ``row`` is finite and has ``shape``, that of the row ``first``."""
    if x.shape != shape:
        raise DataError(
            f"inputs must have one shape, but row {row} has {tuple(x.shape)} and row {first} has {tuple(shape)}; "
            "resize them in the dataset"
        )
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise DataError(f"input {row} contains NaN or inf; remove or repair it")


def _label(item: Any, where: str, row: int) -> int | str:
    try:
        if hasattr(item, "shape"):
            raise TypeError("a row of numbers is no pair")
        label = item[1]
    except (TypeError, LookupError, ValueError) as error:
        raise DataError(
            f"items of the dataset must be (input, label) pairs, but item {row} is a {type(item).__name__}"
        ) from error
    return plain_label(label, where, row)


def plain_label(value: Any, where: str, row: int) -> int | str:
    """Return a label of any type as a whole number or text; refuse none, several, or another number."""
    given = value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    elif not isinstance(value, str | int | float) and getattr(value, "shape", None) in ((), (1,)):
        # A scalar of torch, NumPy or pandas; a meta or quantized one has no value.
        with contextlib.suppress(RuntimeError, NotImplementedError, ValueError, TypeError):
            value = value.item()
    if isinstance(value, str) and value.strip():
        return value
    if value is None or isinstance(value, str) or (isinstance(value, float) and value != value):
        raise DataError(f"{where}: row {row} has no label; give it one, or leave the row out")
    with contextlib.suppress(TypeError, ValueError, OverflowError, ArithmeticError):
        if isinstance(value, Number) and int(value) == value and abs(int(value)) < 2**63:  # type: ignore[call-overload]
            return int(value)  # type: ignore[call-overload, no-any-return]
    raise DataError(
        f"{where}: row {row} has label {reprlib.repr(given)}, expected whole numbers from 0, or text in every row"
    )


_TRIED = 8
"""Rows that are read twice, to see whether the data set draws random numbers."""

_DRAWS = (
    "the data set draws random numbers, so its rows are read again whenever they are needed; with cache='memory' "
    "(--cache memory) each would stay as it was first read"
)


class MappedSource:
    """A source over a map-style dataset whose items are ``(input, label, ...)``.

    :meth:`labels` reads every item once and keeps the inputs as ``reader`` says. Inputs that are not kept are read
    when they are needed. Random transforms inside the dataset then go on working: they are seeded by how many
    batches were read before, so that they are the same whoever reads; ``generator`` is not consulted. Inputs are
    checked for equal shape and for NaN or inf as they are read.

    Attributes:
        kept: every input (N, ...), on the CPU, once :meth:`labels` has kept them.
        random: whether two readings of a row differ; ``None`` until :meth:`labels` has tried.
        notes: what the user is to know about how it is read.
    """

    host_rows = True

    def __init__(
        self, dataset: Any, device: torch.device | str = "cpu", reader: Reader | None = None
    ) -> None:
        self.dataset = dataset
        self.device = torch.device(device)
        self.reader = reader or Reader()
        self.kept: Tensor | None = None
        self.random: bool | None = None
        self.notes: tuple[str, ...] = ()
        self._number = 0

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def augments(self) -> bool:
        """Whether a row may differ from one reading to the next."""
        return self.kept is None and self.random is not False

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the stacked inputs of ``rows``, on the device."""
        return next(self.stream([rows], generator))

    def stream(self, parts: Sequence[Tensor], generator: torch.Generator | None) -> Iterator[Tensor]:
        """Yield what :meth:`fetch` returns for each of ``parts``; workers read ahead."""
        if self.kept is not None:
            for rows in parts:
                yield sent(self.kept[rows.cpu()], self.device)
            return
        first, self._number = self._number, self._number + len(parts)
        plans = (Plan(rows.tolist(), first + number) for number, rows in enumerate(parts))
        for inputs in self.reader.ahead(self._inputs, plans, self.device):
            yield sent(inputs, self.device)

    def labels(self, look: Callable[[Tensor, int], None] | None = None) -> list[int | str]:
        """Read every item once: return its label, a whole number or text, and keep its input.

        ``look`` is given each input and its row. Items that are no pair, and other labels, are refused.
        """
        self.random = self._draws()
        keeping = self.reader.cache != "none"
        if self.random and self.reader.cache == "auto":
            keeping, self.notes = False, (_DRAWS,)
        labels: list[int | str] = []
        kept: Tensor | None = None
        for items in self.reader.ahead(self._items, in_order(len(self))):
            for x, label in items:
                row = len(labels)
                if look is not None:
                    look(x, row)
                if row == 0 and keeping:
                    kept, note = self.reader.room((len(self), *x.shape), x.dtype)
                    self.notes += (note,) if note else ()
                if kept is not None:
                    if x.shape != kept.shape[1:] or x.dtype != kept.dtype:
                        kept = None  # token ids of several lengths, say
                    else:
                        if look is None:
                            check_input(x, row, x.shape)
                        kept[row] = x
                labels.append(label)
        self.kept = kept
        return labels

    def _inputs(self, plan: Plan) -> Tensor:
        inputs = self._each(plan, item_input)
        for row, x in zip(plan.rows, inputs, strict=True):
            check_input(x, row, inputs[0].shape, plan.rows[0])
        return torch.stack(inputs)

    def _items(self, plan: Plan) -> list[tuple[Tensor, int | str]]:
        return self._each(plan, lambda item, row: (item_input(item, row), _label(item, "the dataset", row)))

    def _each(self, plan: Plan, take: Callable[[Any, int], T]) -> list[T]:
        """Return ``take(item, row)`` of every row; what a row draws at random is the same whoever reads it."""
        if self.random is False:
            return [take(_item(self.dataset, row), row) for row in plan.rows]
        found = []
        with own_global_draws() as seed_all:
            for row in plan.rows:
                seed_all(derive_seed(plan.number, "item", row))
                found.append(take(_item(self.dataset, row), row))
        return found

    def _draws(self) -> bool:
        """Whether an item differs when it is read again, or reading it takes from a global generator."""
        count = len(self)
        with own_global_draws():
            for row in sorted({number * count // _TRIED for number in range(_TRIED)}):
                # What is wrong with an item is told when it is its turn.
                with contextlib.suppress(DataError):
                    first = item_input(_item(self.dataset, row), row)
                    before = global_state()
                    again = item_input(_item(self.dataset, row), row)
                    same = first.dtype == again.dtype and torch.equal(first.nan_to_num(), again.nan_to_num())
                    if global_state() != before or not same:
                        return True
        return False


def examples_from_dataset(
    dataset: Any, n_classes: int, device: torch.device | str = "cpu", reader: Reader | None = None
) -> Examples:
    """Wrap a map-style dataset: read its items once, and its inputs again where they are not kept.

    Labels are those of the items, which the model was trained with, not of an attribute of the dataset.

    Raises:
        DataError: the dataset is empty, its items are no pairs, or its labels are out of range.
    """
    source = MappedSource(as_pairs(dataset), device, reader)
    return Examples.all_of(source, numbered_labels(source), n_classes)


def numbered_labels(source: MappedSource, look: Callable[[Tensor, int], None] | None = None) -> Tensor:
    """Return the labels int64 (N,) of a dataset, unchecked against a number of classes.

    Warns of what keeps the inputs from being kept, where it is not ``reader`` itself.
    """
    labels = source.labels(look)
    text = next((row for row, label in enumerate(labels) if isinstance(label, str)), None)
    if text is not None:
        raise DataError(
            f"row {text} of the dataset has label {labels[text]!r:.100}, expected whole numbers from 0; number the "
            "classes in the order of the model's logits"
        )
    if source.kept is None:
        for note in source.notes:
            warnings.warn(note, stacklevel=2)
    return torch.tensor(labels, dtype=torch.int64)
