"""Subtracting what training on known bad examples adds to the weights (CUTS)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.importance import trainable
from expunge.models.head import find_head
from expunge.training.features import features_and_logits
from expunge.training.loop import cross_entropy, predict
from expunge.training.recipe import Recipe

RULES = ("neighbours", "accuracy")
"""Ways to choose the strength."""


def agreement(features: Tensor, logits: Tensor, k: int) -> float:
    """How well neighbours agree, more than by chance, less what is missing of the classes.

    (A - P) / (1 - P) - max(0, C - 1 / P) / C - (C - C') / C: A the share of the k nearest neighbours (by the angle of
    their features) that are given the same class, P = sum_c p_c^2 with p the mean softmax, C the number of classes
    and C' how many of them at least max(3, k), but no more than k + 1, examples are given. -inf where C' < 2.

    Args:
        features: (N, D), of at least k + 1 examples.
        logits: (N, C).
        k: neighbours, at least 1.
    """
    given, n_classes = logits.argmax(1), logits.shape[1]
    supported = int((torch.bincount(given, minlength=n_classes) >= min(k + 1, max(3, k))).sum())
    if supported < 2:
        return -math.inf
    directions = F.normalize(features.float().flatten(1), dim=1)
    likeness = (directions @ directions.T).fill_diagonal_(-math.inf)
    nearest = likeness.topk(k, dim=1).indices
    same = float((given[nearest] == given[:, None]).float().mean())
    chance = float(logits.float().softmax(1).mean(0).square().sum())
    fewer = max(0.0, n_classes - 1 / chance) / n_classes
    return (same - chance) / (1 - chance) - fewer - (n_classes - supported) / n_classes


@dataclass(frozen=True, kw_only=True)
class CUTS(GradientMethod):
    """Train on the forget set with its bad labels, and subtract a multiple of what that changed.

    theta_f = theta_o after ``epochs`` passes over D_f, minimising CE(f_theta(x), y); tau = theta_f - theta_o;
    theta = theta_o - alpha tau, alpha among 0, ``step``, 2 ``step`` .. ``largest``.

    "neighbours": the alpha at which neighbours among D_f agree best, see :func:`agreement`, with k = |D_f| / (2 C), at
    least 1 (C classes). "accuracy": the smallest alpha at which at most ``threshold`` of D_f is given its label; the
    largest if there is none.

    Args:
        lr: learning rate before the first step; it falls by half a cosine.
        epochs: passes over the forget set.
        rule: "neighbours", published for wrong labels, or "accuracy", published for triggers.
        step: between the strengths that are tried.
        largest: of them.
        threshold: of "accuracy".

    Raises:
        InvalidInput: a setting out of its range; fewer than two examples, or a model without a linear head, for
            "neighbours".

    Source: Mozafari, Wani, Bucarelli and Silvestri, arXiv 2511.18660, and the authors' code, whose optimiser, learning
    rate, passes, strengths and rules for a ResNet-18 are the defaults.

    Departures: the known bad examples are the forget set itself (published: a proxy of the same kind of corruption, as
    the training data is taken to be gone). Only parameters are subtracted: running statistics are those of the model at
    the start (what the published code does with them was not settled). The learning rate falls from the first step
    (published: it rises for 30 passes, and is held for 120 more).
    """

    name = "cuts"
    needs = Needs.FORGET
    reference = Reference(
        "Subtract the Corruption: Training-Data-Free Corrective Machine Unlearning using Task Arithmetic",
        "Mozafari, Wani, Bucarelli, Silvestri",
        2025,
        "arXiv 2511.18660",
    )

    lr: float = searched(1e-4, 1e-5, 1e-2, log=True)
    batch_size: int = 256
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    epochs: int = searched(200, 10, 400, log=True)
    rule: str = "neighbours"
    step: float = 0.05
    largest: float = 2.0
    threshold: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(epochs=self.epochs, step=self.step, largest=self.largest)
        if self.rule not in RULES:
            raise InvalidInput(f"rule must be one of {', '.join(map(repr, RULES))}, got {self.rule!r}")
        if not 0 <= self.threshold < 1:
            raise InvalidInput(f"threshold is an accuracy in [0, 1), got {self.threshold}")

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse what has no neighbours."""
        if self.rule == "accuracy":
            return
        find_head(model, request.n_classes)
        if len(request.forget) < 2:
            raise InvalidInput(
                f"neighbours are looked for in the forget set, which has {len(request.forget)} example; list at least "
                "2, or set rule='accuracy'"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train, go back, and go on in the opposite direction, in place."""
        forget, named = request.forget, trainable(model)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        self.fit(model, forget, cross_entropy, request, epochs=self.epochs, schedule="cosine")
        added = {name: parameter.detach() - start[name] for name, parameter in named.items()}
        model.load_state_dict(start)
        found = self.strength(model, start, added, forget, request)
        _subtract(named, start, added, found)
        return model

    def strength(
        self,
        model: nn.Module,
        start: dict[str, Tensor],
        added: dict[str, Tensor],
        forget: Examples,
        request: Request,
    ) -> float:
        """Return alpha; ``model`` is left at some strength."""
        named = trainable(model)
        best, chosen = -math.inf, 0.0
        for number in range(round(self.largest / self.step) + 1):
            alpha = number * self.step
            _subtract(named, start, added, alpha)
            if self.rule == "neighbours":
                features, logits = features_and_logits(model, forget, request.numerics)
            else:
                logits = predict(model, forget, request.numerics)
            kept = float((logits.argmax(1) == forget.labels).float().mean())
            row = {"strength": alpha, "forget_accuracy": kept}
            if self.rule == "accuracy":
                request.meter.write(**row)
                chosen = alpha
                if kept <= self.threshold:
                    break
                continue
            k = min(len(forget) - 1, max(1, len(forget) // (2 * request.n_classes)))
            score = agreement(features, logits, k)
            request.meter.write(**row, **({"agreement": score} if math.isfinite(score) else {}))
            if score > best:
                best, chosen = score, alpha
        return chosen

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes, over a fiftieth of the training set, and a forward pass for each strength."""
        return (self.epochs + self.largest / self.step / 3) / 50


@torch.no_grad()
def _subtract(
    named: dict[str, nn.Parameter], start: dict[str, Tensor], added: dict[str, Tensor], alpha: float
) -> None:
    for name, parameter in named.items():
        parameter.copy_(start[name] - alpha * added[name])
