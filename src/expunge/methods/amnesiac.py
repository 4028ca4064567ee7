"""Random wrong labels on the forget set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from expunge.methods.base import Reference, Request, searched
from expunge.methods.random_relabelling import RandomRelabelling


@dataclass(frozen=True, kw_only=True)
class Amnesiac(RandomRelabelling):
    """Give every forgotten example one random wrong label and fine-tune on everything.

    min_theta  mean over D_r ∪ D_f' of CE(f_theta(x), y), D_f' = {(x, y') : (x, y) in D_f}, y' != y drawn once.

    Symbols: y' -> ``labels``.

    Args:
        lr: learning rate before the first step.
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: on every parameter ("adamw": decoupled).
        augment: train on augmented inputs of the remaining data; never of the forget set.
        epochs: passes over all examples.
        reinit_head: draw the weight of the last layer anew before training, its bias kept; ``None`` does so
            exactly when the forget set is whole classes.
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

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        self.prepare_head(model, request)
        self.learn(model, request, self.relabelled(request))
        return model
