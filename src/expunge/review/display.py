"""How a row is shown: as a picture, as text, or as its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from expunge.inputs.training_data import TrainingData
from expunge.optional import load_extra

_NUMBERS = 64
"""Numbers of a row that are shown."""


@dataclass(frozen=True)
class Display:
    """Shows rows of the data.

    Args:
        data: where they are from.
        inputs: names of the columns that the model reads, where they have names.
        tokenizer: folder of the tokenizer that made token ids, if they are to be text again.
    """

    data: TrainingData
    inputs: tuple[str, ...] = ()
    tokenizer: str | None = None

    @cached_property
    def pictures(self) -> bool:
        """Whether rows are pictures: float inputs of 1 or 3 channels."""
        shape = self.data.shape
        return not self.data.sequences and len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1

    def picture(self, row: int) -> Tensor:
        """Return the row as uint8 (C, H, W), without the normalisation it is read with."""
        x = self._input(row)
        if self.data.mean:
            mean, std = torch.tensor(self.data.mean), torch.tensor(self.data.std)
            x = x * std[:, None, None] + mean[:, None, None]
        elif float(x.min()) < 0 or float(x.max()) > 1:
            x = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
        return (x.clamp(0, 1) * 255).round().to(torch.uint8)

    def text(self, row: int) -> str:
        """Return the row as text: token ids decoded if a tokenizer is named, else its numbers."""
        x = self._input(row)
        if self.data.sequences:
            if self._decoder is not None:
                return str(self._decoder.decode(x.tolist(), skip_special_tokens=True))
            return " ".join(map(str, x.flatten().tolist()))
        values = x.flatten().tolist()
        names = self.inputs if len(self.inputs) == len(values) else [str(i) for i in range(len(values))]
        lines = [f"{name}: {value:g}" for name, value in zip(names, values, strict=True)]
        left = [f"and {len(lines) - _NUMBERS} more"] if len(lines) > _NUMBERS else []
        return "\n".join([*lines[:_NUMBERS], *left])

    def _input(self, row: int) -> Tensor:
        return next(self.data.examples.select(torch.tensor([row])).batches(1)).x[0].cpu()

    @cached_property
    def _decoder(self) -> Any:
        if self.tokenizer is None:
            return None
        transformers = load_extra("transformers", "transformers", "text", "showing texts")
        return transformers.AutoTokenizer.from_pretrained(self.tokenizer)
