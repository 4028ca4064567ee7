"""The base of methods that fine-tune on the remaining data and an altered forget set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from expunge.data.examples import Examples
from expunge.data.joined import join
from expunge.methods.base import Needs, Request, positive
from expunge.methods.gradient import GradientMethod
from expunge.methods.request import suitable
from expunge.models.head import find_head
from expunge.training.loop import Objective, cross_entropy
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Relabelling(GradientMethod):
    """Fine-tune on D_r joined with an altered forget set, both shuffled into the same batches.

    lr_i = lr (1 + cos(pi (i + 1) / T)) / 2 for step i = 0 .. T - 1, T = epochs * ceil(|S| / B), where S is
    the joined set; the last batch of a pass may be smaller. The altered forget set is fed plain.

    Symbols: B -> ``batch_size``.

    Args:
        lr: learning rate before the first step.
        augment: train on augmented inputs of the remaining data; never of what joins them.
        epochs: passes over the remaining data and what joins them.
        reinit_head: draw the weight of the last layer anew before training, its bias kept; ``None`` does so
            exactly when the forget set is whole classes.

    Raises:
        InvalidInput: a setting out of its range.

    Source: He et al., 2025, the comparison's common loop.
    """

    needs = Needs.FORGET | Needs.RETAIN

    batch_size: int = 128
    optimiser: str = "adamw"
    epochs: int = 5
    reinit_head: bool | None = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(epochs=self.epochs)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes over the joined set, which is about as large as the training set."""
        return float(self.epochs)

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a model without a linear head if the head is to be drawn anew."""
        if self.draws_head(request):
            find_head(model, request.n_classes)

    def draws_head(self, request: Request) -> bool:
        """Whether the head is drawn anew for this request."""
        if self.reinit_head is None:
            return request.whole_classes
        return self.reinit_head

    def learn(
        self,
        model: nn.Module,
        request: Request,
        altered: Examples,
        *,
        retain: Examples | None = None,
        objective: Objective = cross_entropy,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Train ``model`` in place on ``retain`` (rows 0 .. |retain| - 1) and ``altered`` (the rows after).

        Args:
            model: the model to train.
            request: for the seed, the meter and where to compute.
            altered: takes the place of the forget set.
            retain: the remaining data; by default all of it.
            objective: loss of a batch.
            optimizer: over the parameters to be trained; by default the settings' over all.
        """
        joined = join(request.retain if retain is None else retain, altered, augment=(True, False))
        self.fit(
            model, joined, objective, request, epochs=self.epochs, schedule="cosine", optimizer=optimizer
        )

    def prepare_head(self, model: nn.Module, request: Request) -> None:
        """Draw the head's weight anew if this request asks for it."""
        if self.draws_head(request):
            redraw_head(find_head(model, request.n_classes), request.generator("head"))

    def alternatives(self, needs: Needs) -> str:
        """Names of the other methods that read no more than ``needs``, for messages."""
        return ", ".join(name for name in suitable(needs) if name != self.name) or "none"


@torch.no_grad()
def redraw_head(head: nn.Linear, draw: torch.Generator) -> None:
    """Draw the weight Xavier-normal with gain sqrt 2, in place; the bias stays."""
    # on the CPU, where the generator lives, so that one seed gives one weight on every device
    weight = torch.empty(head.weight.shape)
    nn.init.xavier_normal_(weight, gain=math.sqrt(2), generator=draw)
    head.weight.copy_(weight)
