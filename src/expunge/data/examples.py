"""Examples with labels, and batches that carry their example indices."""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import InitVar, dataclass, replace
from numbers import Number
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from expunge.errors import DataError, InvalidInput
from expunge.seeding import sent


@dataclass(frozen=True)
class Batch:
    """Inputs ``x`` (B, ...), labels ``y`` int64 (B,) and the rows ``index`` int64 (B,) they come from."""

    x: Tensor
    y: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, positions: Tensor) -> Batch:
        """Return the members at ``positions`` (an index tensor or a boolean mask)."""
        if positions.dtype == torch.bool:
            positions = positions.nonzero().flatten()  # once for all three: an accelerator is waited for
        return Batch(self.x[positions], self.y[positions], self.index[positions])


class Source(Protocol):
    """Where inputs come from: a random-access reader of model-ready tensors.

    One that sets ``host_rows = True`` is given the rows on the CPU: it reads them there.
    """

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def __len__(self) -> int: ...

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the inputs of ``rows`` (B,) as float (B, ...); augmented only if ``generator`` is given."""


@dataclass(frozen=True)
class Examples:
    """Some rows of a source with a label each; selecting or relabelling copies no pixels.

    Args:
        source: reader of the inputs.
        labels: int64 (N,), on the source's device.
        index: int64 (N,), the rows of ``source`` these examples are; an example's index never changes
            when it is selected or shuffled.
        n_classes: number of classes the labels range over.
    """

    source: Source
    labels: Tensor
    index: Tensor
    n_classes: int
    checked: InitVar[bool] = False
    """Whether the labels are known to be in range, so that an accelerator need not be waited for."""

    def __post_init__(self, checked: bool) -> None:
        if self.labels.shape != self.index.shape or self.labels.ndim != 1:
            raise InvalidInput(
                f"labels and index must be 1-D and of one length, got {tuple(self.labels.shape)} and "
                f"{tuple(self.index.shape)}"
            )
        if not checked:
            check_labels(self.labels, self.n_classes)

    @classmethod
    def all_of(cls, source: Source, labels: Tensor, n_classes: int) -> Examples:
        """Every row of ``source``, labelled by ``labels``."""
        index = torch.arange(len(source), device=source.device)
        return cls(source, labels.to(source.device, torch.int64), index, n_classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the batches live."""
        return self.source.device

    @property
    def augments(self) -> bool:
        """Whether augmented batches differ from others; a source that does not say so (``augments``) may."""
        return bool(getattr(self.source, "augments", True))

    def select(self, positions: Tensor) -> Examples:
        """Return the examples at ``positions``, a position tensor or a boolean mask over these examples."""
        positions = sent(positions, self.device)
        return replace(self, labels=self.labels[positions], index=self.index[positions], checked=True)

    def relabel(self, labels: Tensor) -> Examples:
        """Return the same inputs with other labels (N,)."""
        return replace(self, labels=labels.to(self.device, torch.int64))

    def sample(self, size: int, generator: torch.Generator, *, augment: bool = False) -> Batch:
        """Draw up to ``size`` different examples; all of them, shuffled, if there are no more."""
        chosen = sent(torch.randperm(len(self), generator=generator)[:size], self.device)
        rows = self.index[chosen]
        return Batch(self.source.fetch(rows, generator if augment else None), self.labels[chosen], rows)

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, augment: bool = False
    ) -> Iterator[Batch]:
        """Yield every example once, in order, or shuffled when ``generator`` is given.

        Args:
            size: examples a batch; the last batch may be smaller. A shuffled pass does not end in a batch of one,
                which has no statistics to normalise by: that example joins the batch before.
            generator: CPU generator of the order and of the augmentation.
            augment: apply the source's augmentation; needs ``generator``.

        Raises:
            InvalidInput: ``size`` below one, or ``augment`` without a generator.
        """
        if size < 1:
            raise InvalidInput(f"batch size must be at least 1, got {size}")
        if augment and generator is None:
            raise InvalidInput("augmentation draws random numbers: pass a generator")
        count = len(self)
        if count == 0:
            return
        rows, labels = self.index, self.labels
        if generator is not None:
            order = sent(torch.randperm(count, generator=generator), self.device)
            rows, labels = rows[order], labels[order]
        sizes = [size] * (count // size) + ([count % size] if count % size else [])
        if generator is not None and len(sizes) > 1 and sizes[-1] == 1 < size:
            sizes[-2:] = [size + 1]
        read = rows.cpu() if getattr(self.source, "host_rows", False) else rows
        for part, own, y in zip(*(torch.split(whole, sizes) for whole in (read, rows, labels)), strict=True):
            yield Batch(self.source.fetch(part, generator if augment else None), y, own)


def batch_count(examples: int, size: int) -> int:
    """Return how many batches a shuffled pass over so many examples has."""
    lone = examples % size == 1 and 1 < size < examples
    return math.ceil(examples / size) - lone


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise :class:`DataError` unless every label is in ``[0, n_classes)``."""
    if not len(labels):
        return
    least, most = torch.stack(torch.aminmax(labels)).tolist()
    if least < 0 or most >= n_classes:
        bad = labels[(labels < 0) | (labels >= n_classes)]
        where = int(((labels < 0) | (labels >= n_classes)).nonzero()[0])
        raise DataError(
            f"labels must lie in 0..{n_classes - 1}, but {len(bad)} do not (the first is {int(bad[0])} at "
            f"position {where}); correct the labels or the number of classes"
        )


_INPUTS = ("input", "inputs", "x", "image", "pixel_values", "input_ids", "features")
_LABELS = ("label", "labels", "y", "target")


class _Pairs:
    """A dataset whose items are dictionaries, as one of (input, label) pairs."""

    def __init__(self, dataset: Any, inputs: str, label: str) -> None:
        self.dataset, self._input, self._label = dataset, inputs, label

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        item = self.dataset[row]
        return item[self._input], item[self._label]


def as_pairs(dataset: Any, inputs: str | None = None, label: str | None = None) -> Any:
    """Return a map-style dataset whose items are (input, label, ...); dictionaries are read by the usual names.

    Args:
        dataset: with items that are sequences, or dictionaries as those of Hugging Face.
        inputs: entry of a dictionary that is the input; by default the first of ``input``, ``x``, ``image``,
            ``pixel_values``, ``input_ids``, ``features`` that is there.
        label: entry that is the label; by default ``label``, ``labels``, ``y`` or ``target``.

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
    for name, what in ((inputs, "inputs"), (label, "label")):
        if name is None or name not in first:
            raise DataError(
                f"items of the dataset hold {', '.join(map(str, list(first)[:8]))}, but no {name or what!r}; name the "
                f"entry with --{what}, or return (input, label) pairs"
            )
    assert inputs is not None
    assert label is not None
    return _Pairs(dataset, inputs, label)


def _item(dataset: Any, row: int) -> Any:
    try:
        return dataset[row]
    # A user's own dataset can fail in any way.
    except Exception as error:
        raise DataError(
            f"item {row} of the dataset cannot be read: {type(error).__name__}: {error}"
        ) from error


def item_input(item: Any, row: int) -> Tensor:
    """Return the input of an (input, label, ...) item as a dense tensor.

    Raises:
        DataError: the item is no pair, or its input no tensor that a model can read.
    """
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


def item_labels(
    dataset: Any, where: str = "the dataset", look: Callable[[Tensor, int], None] | None = None
) -> list[int | str]:
    """Return the label of every item of a map-style dataset, as ``dataset[i]`` gives it: a whole number, or text.

    Args:
        dataset: as :func:`as_pairs` returns it.
        where: the labels come from; for messages.
        look: is given each input and its row, so that every item is read once only.

    Raises:
        DataError: an item that cannot be read or is no pair, or a label that is neither.
    """
    labels = []
    for row in range(len(dataset)):
        item = _item(dataset, row)
        if look is not None:
            look(item_input(item, row), row)
        labels.append(_label(item, where, row))
    return labels


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
    """Return a label of any type as a whole number or text.

    Raises:
        DataError: no label, several, or one that is no whole number.
    """
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


class MappedSource:
    """A source over any map-style dataset whose items are ``(input, label, ...)``.

    Items are read one by one and stacked, so random transforms inside the dataset go on working; whether
    they are applied is the dataset's business, ``generator`` is not consulted. Inputs are checked for
    equal shape and for NaN or inf as they are read.
    """

    host_rows = True

    def __init__(self, dataset: Any, device: torch.device | str = "cpu") -> None:
        self.dataset = dataset
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the stacked inputs of ``rows``, on the device."""
        items = [item_input(_item(self.dataset, row), row) for row in rows.tolist()]
        for row, item in zip(rows.tolist(), items, strict=True):
            check_input(item, row, items[0].shape, int(rows[0]))
        return sent(torch.stack(items), self.device)


def examples_from_dataset(dataset: Any, n_classes: int, device: torch.device | str = "cpu") -> Examples:
    """Wrap a map-style dataset: read its labels once and its inputs on demand.

    Labels are those of the items, which the model was trained with, not of an attribute of the dataset.

    Raises:
        DataError: the dataset is empty, its items are no pairs, or its labels are out of range.
    """
    dataset = as_pairs(dataset)
    return Examples.all_of(MappedSource(dataset, device), read_labels(dataset), n_classes)


def read_labels(dataset: Any, look: Callable[[Tensor, int], None] | None = None) -> Tensor:
    """Return the labels int64 (N,) of the items of a map-style dataset, unchecked against a number of classes.

    Args:
        dataset: of (input, label) pairs, or dictionaries.
        look: is given each input and its row.

    Raises:
        DataError: not a map-style dataset, an empty one, items that are no pairs, or labels that are no whole numbers.
    """
    labels = item_labels(as_pairs(dataset), look=look)
    text = next((row for row, label in enumerate(labels) if isinstance(label, str)), None)
    if text is not None:
        raise DataError(
            f"row {text} of the dataset has label {labels[text]!r:.100}, expected whole numbers from 0; number the "
            "classes in the order of the model's logits"
        )
    return torch.tensor(labels, dtype=torch.int64)


def check_not_empty(train_set: Sized) -> None:
    """Raise :class:`DataError` if there is no example to train on."""
    if len(train_set) == 0:
        raise DataError("the training set is empty")
