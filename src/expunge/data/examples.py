"""Examples with labels, and batches that carry their example indices."""

from __future__ import annotations

import math
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

    One that sets ``host_rows = True`` is given the rows on the CPU: it reads them there. One that can read ahead has
    ``stream(parts, generator)``, which yields what ``fetch`` returns for each part.
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
        parts, owns, ys = (torch.split(whole, sizes) for whole in (read, rows, labels))
        inputs = read_batches(self.source, parts, generator if augment else None)
        for x, y, own in zip(inputs, ys, owns, strict=True):
            yield Batch(x, y, own)


def read_batches(
    source: Source, parts: Sequence[Tensor], generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield what ``source.fetch`` returns for each of ``parts``, read ahead where the source can."""
    stream = getattr(source, "stream", None)
    if stream is None:
        return (source.fetch(part, generator) for part in parts)
    ahead: Iterator[Tensor] = stream(parts, generator)
    return ahead


def batch_count(examples: int, size: int) -> int:
    """Return how many batches a shuffled pass over so many examples has."""
    lone = examples % size == 1 and 1 < size < examples
    return math.ceil(examples / size) - lone


def read_labels(dataset: Any) -> Tensor:
    """Return the labels int64 (N,) of a map-style dataset as ``unlearn`` reads them, whatever the number of classes.

    Args:
        dataset: of (input, label) pairs, or dictionaries.

    Raises:
        DataError: not a map-style dataset, an empty one, items that are no pairs, or labels that are no whole numbers.
    """
    from expunge.data.mapped import (  # which reads into the examples of here
        MappedSource,
        as_pairs,
        numbered_labels,
    )

    return numbered_labels(MappedSource(as_pairs(dataset)))


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise :class:`DataError` unless every label is in ``[0, n_classes)``."""
    if not len(labels):
        return
    least, most = torch.stack(torch.aminmax(labels)).tolist()
    if least < 0 or most >= n_classes:
        bad = ((labels < 0) | (labels >= n_classes)).nonzero().flatten()
        raise DataError(
            f"labels must lie in 0..{n_classes - 1}, but {len(bad)} do not (the first is {int(labels[bad[0]])} at "
            f"position {int(bad[0])}); correct the labels or the number of classes"
        )


def check_not_empty(train_set: Sized) -> None:
    """Raise :class:`DataError` if there is no example to train on."""
    if len(train_set) == 0:
        raise DataError("the training set is empty")
