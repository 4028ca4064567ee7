"""What a first training is prepared by: mnemonic codes, or units that single examples own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.capacity.route import Router
from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.models.split import SplitNetwork
from expunge.seeding import derive_seed, generator, sent
from expunge.training.loop import Loss, Objective


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
