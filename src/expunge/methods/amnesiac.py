"""Random wrong labels on the forget set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Reference, Request, searched
from expunge.methods.relabelling import Relabelling

LABELS = ("uniform", "remaining")
"""Ways to draw a wrong label: see :func:`wrong_labels`."""


@dataclass(frozen=True, kw_only=True)
class Amnesiac(Relabelling):
    """Give every forgotten example one random wrong label and fine-tune on everything.

    min_theta  mean over D_r ∪ D_f' of CE(f_theta(x), y), D_f' = {(x, y') : (x, y) in D_f}, y' != y drawn once.

    Symbols: y' -> ``labels``.

    Args:
        labels: how a wrong label is drawn: "uniform" over the other classes, or "remaining": that of a
            random remaining example of another class (for whole classes).

    Raises:
        InvalidInput: a setting out of its range; no wrong label to be had.

    Source: Graves, Nagisetty and Ganesh (AAAI 2021), the relabelling form; their other form, which
    subtracts recorded updates of the first training, is not this one. The defaults are those with which
    NatMU (He et al., 2025) compares on CIFAR-10, sample-wise.

    Departures: the remaining data are augmented (in NatMU's comparison plain; ``augment=False``); once
    "remaining" has used every other example, it starts over.
    """

    name = "amnesiac"
    reference = Reference(
        "Amnesiac Machine Learning (relabelling form)", "Graves, Nagisetty, Ganesh", 2021, "AAAI"
    )

    lr: float = searched(1.8e-5, 1e-5, 1e-3, log=True)
    weight_decay: float = searched(4e-4, 0.0, 1e-3)
    labels: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels not in LABELS:
            raise InvalidInput(f"labels must be one of {', '.join(map(repr, LABELS))}, got {self.labels!r}")

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a request in which some example could get no wrong label."""
        super().check(model, request)
        if request.n_classes < 2:
            raise InvalidInput(
                f"method {self.name!r} gives forgotten examples a wrong label, which takes 2 classes; there is "
                f"{request.n_classes}. Train with n_classes=2 or more"
            )
        if self.labels == "uniform":
            return
        there = set(request.retain.labels.tolist())
        stuck = [label for label in sorted(set(request.forget.labels.tolist())) if not there - {label}]
        if stuck:
            raise InvalidInput(
                f"method {self.name!r} with labels='remaining' takes wrong labels from the "
                f"{len(request.retain)} remaining examples, but none has a label other than {stuck[0]}; use "
                "labels='uniform'"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        self.prepare_head(model, request)
        self.learn(model, request, self.relabelled(request))
        return model

    def relabelled(self, request: Request) -> Examples:
        """Return the forget set with its wrong labels."""
        forget, draw = request.forget, request.generator("labels")
        return forget.relabel(wrong_labels(forget, request.retain, self.labels, draw))


def wrong_labels(forget: Examples, retain: Examples, labels: str, draw: torch.Generator) -> Tensor:
    """Return one wrong label int64 (F,) for each forgotten example, on the CPU.

    Args:
        forget: the forget set with its given labels.
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
