"""Examples with labels, and batches that carry their example indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import InitVar, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

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
            size: examples a batch; the last batch may be smaller.
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
        read = rows.cpu() if getattr(self.source, "host_rows", False) else rows
        for part, own, y in zip(*(torch.split(whole, size) for whole in (read, rows, labels)), strict=True):
            yield Batch(self.source.fetch(part, generator if augment else None), y, own)


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
        items = [torch.as_tensor(self.dataset[int(row)][0]) for row in rows.tolist()]
        if len({item.shape for item in items}) > 1:
            first = items[0].shape
            position = next(i for i, item in enumerate(items) if item.shape != first)
            raise DataError(
                f"inputs must have one shape, but row {int(rows[0])} has {tuple(first)} and row "
                f"{int(rows[position])} has {tuple(items[position].shape)}; resize them in the dataset"
            )
        stacked = torch.stack(items)
        if stacked.is_floating_point() and not bool(torch.isfinite(stacked).all()):
            row = int(rows[(~torch.isfinite(stacked)).flatten(1).any(1).nonzero()[0]])
            raise DataError(f"input {row} contains NaN or inf; remove or repair it")
        return sent(stacked, self.device)


def examples_from_dataset(dataset: Any, n_classes: int, device: torch.device | str = "cpu") -> Examples:
    """Wrap a map-style dataset: read its labels once and its inputs on demand.

    Labels come from ``dataset.targets`` or ``dataset.labels`` where there is one, else from the items;
    a ``TensorDataset`` is read from its second tensor.

    Raises:
        DataError: the dataset is empty, its items are no pairs, or its labels are out of range.
    """
    return Examples.all_of(MappedSource(dataset, device), read_labels(dataset), n_classes)


def read_labels(dataset: Any) -> Tensor:
    """Return the labels int64 (N,) of a map-style dataset, unchecked against a number of classes.

    Raises:
        DataError: not a map-style dataset, an empty one, or items that are no pairs.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"a map-style dataset (with __getitem__ and __len__) is expected, got {type(dataset).__name__}; "
            "an iterable dataset has no example indices to forget"
        )
    check_not_empty(dataset)
    labels = torch.as_tensor(_labels_of(dataset), dtype=torch.int64).flatten()
    if len(labels) != len(dataset):
        raise DataError(f"{len(dataset)} examples but {len(labels)} labels; give each example one label")
    return labels


def check_not_empty(train_set: Sized) -> None:
    """Raise :class:`DataError` if there is no example to train on."""
    if len(train_set) == 0:
        raise DataError("the training set is empty")


def _labels_of(dataset: Any) -> Sequence[int] | Tensor:
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            return getattr(dataset, name)  # type: ignore[no-any-return]
    tensors: tuple[Tensor, ...] = getattr(dataset, "tensors", ())
    if len(tensors) >= 2:
        return tensors[1]
    try:
        return [int(dataset[i][1]) for i in range(len(dataset))]
    except (TypeError, IndexError, ValueError) as error:
        raise DataError(
            f"items of the dataset must be (input, label) pairs with an integer label: {error}"
        ) from error
