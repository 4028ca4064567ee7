"""Examples of several sources as one set, and inputs held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.data.examples import Examples, read_batches
from expunge.errors import InvalidInput
from expunge.seeding import sent


@dataclass(frozen=True)
class TensorSource:
    """Model-ready inputs (N, ...) in memory; they are never augmented."""

    inputs: Tensor
    augments: ClassVar[bool] = False

    @property
    def device(self) -> torch.device:
        """Where the inputs live."""
        return self.inputs.device

    def __len__(self) -> int:
        return len(self.inputs)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the inputs of ``rows``; ``generator`` is not consulted."""
        return self.inputs[rows]


def in_memory(inputs: Tensor, labels: Tensor, n_classes: int) -> Examples:
    """Return inputs (N, ...) with their labels (N,) as examples."""
    return Examples.all_of(TensorSource(inputs), labels.to(inputs.device), n_classes)


@dataclass(frozen=True)
class JoinedSource:
    """The rows of several sources, one after the other.

    Args:
        parts: examples whose inputs have one shape.
        augment: for each part, whether its inputs may be augmented.
    """

    parts: Sequence[Examples]
    augment: Sequence[bool]
    host_rows: ClassVar[bool] = True

    @property
    def device(self) -> torch.device:
        """Where the inputs live."""
        return self.parts[0].device

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def augments(self) -> bool:
        """Whether any part may be augmented and would be."""
        return any(may and part.augments for part, may in zip(self.parts, self.augment, strict=True))

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the inputs of ``rows``, each part augmented only if it may be."""
        return next(self.stream([rows], generator))

    def stream(self, batches: Sequence[Tensor], generator: torch.Generator | None) -> Iterator[Tensor]:
        """Yield what :meth:`fetch` returns for each of ``batches``; the parts read ahead."""
        sizes = torch.tensor([len(rows) for rows in batches])
        rows_of_all, number_of = torch.cat(list(batches)).cpu(), torch.repeat_interleave(sizes)
        place_of = torch.arange(len(rows_of_all)) - (sizes.cumsum(0) - sizes)[number_of]
        places: list[Sequence[Tensor]] = []
        readers: list[Iterator[Tensor]] = []
        start = 0
        for part, augment in zip(self.parts, self.augment, strict=True):
            here = ((rows_of_all >= start) & (rows_of_all < start + len(part))).nonzero().flatten()
            counts = torch.bincount(number_of[here], minlength=len(batches)).tolist()
            rows = part.index[sent(rows_of_all[here] - start, part.index.device)]
            wanted = [rows for rows in torch.split(rows, counts) if len(rows)]
            places.append(torch.split(place_of[here], counts))
            readers.append(read_batches(part.source, wanted, generator if augment else None))
            start += len(part)
        for number, rows in enumerate(batches):
            found: Tensor | None = None
            for within, reader in zip(places, readers, strict=True):
                if len(here := within[number]):
                    inputs = next(reader)
                    if found is None:
                        found = inputs.new_empty(len(rows), *inputs.shape[1:])
                    found[sent(here, found.device)] = inputs
            if found is None:
                raise InvalidInput(
                    f"rows must lie in 0..{start - 1} and be at least one, got {rows.tolist()}"
                )
            yield found


def join(*parts: Examples, augment: Sequence[bool] | None = None) -> Examples:
    """Return the examples of ``parts``, numbered anew from 0 in their order.

    Args:
        parts: sets of one shape of input and one number of classes; empty ones are left out.
        augment: for each part, whether it may be augmented; by default all may.

    Raises:
        InvalidInput: no part has examples, or the numbers of classes differ.
    """
    allowed = [True] * len(parts) if augment is None else list(augment)
    kept = [(part, may) for part, may in zip(parts, allowed, strict=True) if len(part)]
    if not kept or len({part.n_classes for part, _ in kept}) != 1:
        raise InvalidInput(
            "examples of one number of classes are expected, got "
            f"{[(len(part), part.n_classes) for part in parts]} (examples, classes)"
        )
    source = JoinedSource([part for part, _ in kept], [may for _, may in kept])
    labels = torch.cat([part.labels for part, _ in kept])
    return Examples.all_of(source, labels, kept[0][0].n_classes)
