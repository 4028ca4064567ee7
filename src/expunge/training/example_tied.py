"""Example-tied dropout: a first training in which every example has some units of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from expunge.capacity.route import Router
from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.models.split import SplitNetwork
from expunge.seeding import derive_seed
from expunge.training.loop import Loss, Objective


@dataclass(frozen=True, kw_only=True)
class ExampleTied:
    """The training-time preparation of example-tied dropout.

    The network gets spare units. In training an example sees the base units and those spare units that a
    hash of its index opens; when the model is used, the spare units are closed.

    Args:
        share: probability that a spare unit is open for an example, in (0, 1]; p_mem, 0.2 in the REM benchmark.
        spare: spare units for each base unit.

    Raises:
        InvalidInput: a value outside its range.

    Source: Maini, Mozer, Sedghi, Lipton, Kolter, Zhang, "Can Neural Network Memorization Be Localized?",
    ICML 2023; with this split, Schoepf et al., arXiv 2505.17730 ("mem20").
    """

    share: float = 0.2
    spare: float = 1.0

    def __post_init__(self) -> None:
        Router(self.share)
        if self.spare <= 0:
            raise InvalidInput(f"spare must be above 0 (spare units for each base unit), got {self.spare}")

    def widen(self, model: nn.Module, source: torch.Generator) -> SplitNetwork:
        """Return ``model`` with spare units.

        Raises:
            InvalidInput: the network cannot be widened.
        """
        if not isinstance(model, SplitNetwork):
            raise InvalidInput(
                f"example-tied dropout needs a network with spare units (resnet9, vit), got {type(model).__name__}"
            )
        return model.widen(self.spare, source)

    def objective(self, seed: int) -> Objective:
        """Return the mean cross-entropy on the routed path."""
        router = Router(self.share, derive_seed(seed, "example-tied masks"))

        def routed(model: nn.Module, batch: Batch) -> Loss:
            nobody = batch.index < 0
            logits = model(batch.x, router(batch.index, nobody))
            return Loss(nn.functional.cross_entropy(logits.float(), batch.y), len(batch))

        return routed
