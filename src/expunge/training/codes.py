"""Mnemonic codes: one random image per class that a model is trained to know its class by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.seeding import generator, sent


@dataclass(frozen=True, kw_only=True)
class MnemonicCodes:
    """The training-time preparation of one-shot unlearning.

    Whenever an example (x, y) is visited, with probability t_mix its input is replaced by the code xi_y of
    its class; the label stays. Codes are drawn once and never augmented.

    Symbols: t_mix -> ``share``.

    Args:
        share: probability with which an input is replaced, in (0, 1). The paper: 0.1, and 0.3 for CIFAR-10.
        law: of a code's entries: "normal" (mean 0, variance 1; the paper's) or "uniform" in [0, 1].

    Raises:
        InvalidInput: a value outside its range.

    Source: Yamashita, Yamada, Shibata, arXiv 2306.05670, algorithm 1.
    """

    share: float = 0.1
    law: str = "normal"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidInput(f"the share of codes must lie in (0, 1), got {self.share}")
        if self.law not in ("normal", "uniform"):
            raise InvalidInput(f"the law of the codes must be 'normal' or 'uniform', got {self.law!r}")

    def draw(self, seed: int, n_classes: int, shape: tuple[int, ...]) -> Tensor:
        """Return the codes float32 (n_classes, *shape) that follow from ``seed``, in the model's input space."""
        source = generator(seed, "mnemonic codes")
        size = (n_classes, *shape)
        if self.law == "normal":
            return torch.randn(size, generator=source)
        return torch.rand(size, generator=source)

    def mix(self, batches: Iterable[Batch], codes: Tensor, source: torch.Generator) -> Iterator[Batch]:
        """Yield ``batches`` with inputs replaced by the codes of their labels; ``source`` draws which."""
        for batch in batches:
            drawn = torch.rand(len(batch), generator=source) < self.share
            replaced = sent(drawn.nonzero().flatten(), batch.x.device)
            inputs = batch.x.clone()
            inputs[replaced] = codes.to(inputs)[batch.y[replaced]]
            yield Batch(inputs, batch.y, batch.index)
