"""The base of methods that fine-tune on the remaining data and an altered forget set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.joined import join
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Request, positive, suitable
from expunge.methods.gradient import GradientMethod
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
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: on every parameter ("adamw": decoupled).
        augment: train on augmented inputs of the remaining data; never of the altered forget set.
        epochs: passes over the joined set.
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
            return whole_classes(request.forget, request.retain)
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


def whole_classes(forget: Examples, retain: Examples) -> bool:
    """Whether no class has examples in both sets and the forget set has some."""
    return len(forget) > 0 and not bool(torch.isin(forget.labels, retain.labels).any())


@torch.no_grad()
def redraw_head(head: nn.Linear, draw: torch.Generator) -> None:
    """Draw the weight Xavier-normal with gain sqrt 2, in place; the bias stays."""
    # on the CPU, where the generator lives, so that one seed gives one weight on every device
    weight = torch.empty(head.weight.shape)
    nn.init.xavier_normal_(weight, gain=math.sqrt(2), generator=draw)
    head.weight.copy_(weight)


LABELS = ("uniform", "remaining")
"""Ways to draw a wrong label: see :func:`wrong_labels`."""


def check_labels_setting(labels: str) -> None:
    """Raise :class:`InvalidInput` unless ``labels`` is one of :data:`LABELS`."""
    if labels not in LABELS:
        raise InvalidInput(f"labels must be one of {', '.join(map(repr, LABELS))}, got {labels!r}")


def check_wrong_labels(name: str, labels: str, request: Request) -> None:
    """Raise :class:`InvalidInput` if some forgotten example could get no wrong label."""
    if request.n_classes < 2:
        raise InvalidInput(
            f"method {name!r} gives forgotten examples a wrong label, which takes 2 classes; there is "
            f"{request.n_classes}. Train with n_classes=2 or more"
        )
    if labels == "uniform":
        return
    there = set(request.retain.labels.tolist())
    stuck = [label for label in sorted(set(request.forget.labels.tolist())) if not there - {label}]
    if stuck:
        raise InvalidInput(
            f"method {name!r} with labels='remaining' takes wrong labels from the {len(request.retain)} "
            f"remaining examples, but none has a label other than {stuck[0]}; use labels='uniform'"
        )


def wrong_labels(forget: Examples, retain: Examples, labels: str, draw: torch.Generator) -> Tensor:
    """Return one wrong label int64 (F,) for each forgotten example, on the CPU.

    Args:
        forget: the forget set with its stored labels.
        retain: the remaining data; read only by "remaining".
        labels: "uniform" over the other classes, or "remaining": that of a random remaining example of
            another class, each example used at most once as long as they last.
        draw: CPU generator.
    """
    own, n_classes = forget.labels.cpu(), forget.n_classes
    if labels == "uniform":
        return (own + torch.randint(1, n_classes, own.shape, generator=draw)) % n_classes
    full = torch.bincount(retain.labels.cpu(), minlength=n_classes).double()
    stock, found = full.clone(), torch.empty_like(own)
    for position, label in enumerate(own.tolist()):
        # a class in proportion to its unused examples: the label of one of them drawn uniformly
        others = stock.clone()
        others[label] = 0
        if not bool(others.any()):
            stock = full.clone()
            others = stock.clone()
            others[label] = 0
        chosen = int(torch.multinomial(others, 1, generator=draw))
        stock[chosen] -= 1
        found[position] = chosen
    return found
