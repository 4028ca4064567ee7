"""Smoothing the model's prediction of the forget set up to its certainty about unseen data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples
from expunge.data.joined import join
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.teacher import divergence, frozen
from expunge.seeding import sent
from expunge.training.loop import Loss, accuracy
from expunge.training.numerics import Devices
from expunge.training.recipe import Recipe

_TINY = torch.finfo(torch.float32).tiny
_STOP = -0.01
"""Gap of the accuracies at which the forget set counts as no better known than unseen data."""


def smoothing_temperature(alpha: float, forget_accuracy: float, unseen_accuracy: float) -> float:
    """tau_d = exp(alpha (Acc(f_un, D_f) - Acc(f_orig, D_u))); 1 where the two are alike."""
    return math.exp(alpha * (forget_accuracy - unseen_accuracy))


def gumbel_noise(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Standard Gumbel noise -log(-log u), u uniform on (0, 1): float32 on the CPU."""
    # Doubles, for u rounded to 1 in float32 would give an infinite logit.
    uniform = torch.rand(shape, generator=draw, dtype=torch.float64).clamp_min(_TINY)
    return -torch.log(-torch.log(uniform)).float()


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """softmax((log pi + g) / tau), pi = softmax(logits): float32 (B, C).

    Symbols: g -> ``noise`` (B, C), tau -> ``temperature`` (B,).
    """
    scores = (logits.float().log_softmax(1) + noise) / temperature[:, None]
    return scores.softmax(1)


@dataclass(frozen=True)
class SmoothedTeacher:
    """Objective: KL(gs(pi_orig, tau) || pi_un); tau is tau_d on the forget set and near 0 elsewhere.

    Args:
        teacher: x -> logits of the frozen original.
        n_forget: rows of the joined examples below this are the forget set.
        forget_temperature: tau_d.
        retain_temperature: near 0.
        draw: of the Gumbel noise.
    """

    teacher: Callable[[Tensor], Tensor]
    n_forget: int
    forget_temperature: float
    retain_temperature: float
    draw: torch.Generator

    def target(self, batch: Batch) -> Tensor:
        """Probabilities (B, C)."""
        logits = self.teacher(batch.x)
        noise = sent(gumbel_noise(tuple(logits.shape), self.draw), logits.device)
        temperature = torch.where(
            batch.index.to(logits.device) < self.n_forget, self.forget_temperature, self.retain_temperature
        )
        return gumbel_softmax(logits, noise, temperature)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean over the batch."""
        return Loss(divergence(model(batch.x), self.target(batch)).mean(), len(batch))


@dataclass(frozen=True, kw_only=True)
class LoTUS(GradientMethod):
    """Make the model as uncertain about the forget set as the original is about unseen data.

    min_theta  mean over D_f and a share of D_r of KL(gs(pi_orig, tau) || pi_un),
    gs(pi, tau) = softmax((log pi + g) / tau), g standard Gumbel, tau = tau_d on D_f and near 0 on D_r;
    tau_d = exp(alpha (Acc(f_un, D_f) - Acc(f_orig, D_u))), taken anew before each pass; no further pass once that
    gap is -0.01 or lower. Where D_f is whole classes, Acc(f_orig, D_u) counts as 0: an unseen class is not known.

    Symbols: tau on D_r -> ``retain_temperature``.

    Args:
        augment: train on augmented inputs; the original sees the same ones.
        alpha: how strongly the gap of the accuracies drives the temperature.
        epochs: at most this many passes over the forget set and the share of the retain set.
        retain_share: share of the retain set that is used, drawn once.
        retain_temperature: of the retained examples: near 0, so that their target is one class.

    Raises:
        InvalidInput: there are no unseen examples, or their labels range over other classes.

    Source: Spartalis et al., CVPR 2025, arXiv 2503.18314, and the authors' code, whose learning rate, batch size,
    weight decay, stop and value for whole classes are the defaults here; alpha and epochs are those the authors
    list for ResNet-18 on CIFAR-10.

    Departures: accuracies are taken on given labels and without augmentation. One draw of noise serves a batch
    (published: one for the forgotten and one for the retained examples), and the retained examples' target is soft at
    a temperature near 0 (published: rounded to one class). The loss is this divergence (published: the
    cross-entropy, which has the same gradient).
    """

    name = "lotus"
    needs = Needs.FORGET | Needs.RETAIN | Needs.UNSEEN
    reference = Reference(
        "LoTUS: Large-Scale Machine Unlearning with a Taste of Uncertainty",
        "Spartalis, Semertzidis, Gavves, Daras",
        2025,
        "CVPR 2025, arXiv 2503.18314",
    )

    lr: float = searched(1e-4, 1e-5, 0.01, log=True)
    batch_size: int = 128
    optimiser: str = "adamw"
    alpha: float = searched(8.0, 1.0, 16.0, log=True)
    epochs: int = searched(10, 2, 20, log=True)
    retain_share: float = 0.3
    retain_temperature: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(alpha=self.alpha, epochs=self.epochs, retain_temperature=self.retain_temperature)
        if not 0 <= self.retain_share <= 1:
            raise InvalidInput(
                f"retain_share must lie in [0, 1], got {self.retain_share}; it is a share of the retain set"
            )

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse unseen data on which the original's accuracy cannot be measured."""
        unseen = request.unseen
        if not len(unseen):
            raise InvalidInput(
                "LoTUS measures the original's accuracy on unseen examples and got 0 of them; pass at least 1"
            )
        if unseen.n_classes != request.n_classes:
            raise InvalidInput(
                f"the unseen examples have {unseen.n_classes} classes and the training set "
                f"{request.n_classes}; label them by the same classes"
            )

    def check_devices(self, devices: Devices) -> None:
        """Refuse: every process would draw the same noise for its part of a batch."""
        raise InvalidInput(
            "LoTUS draws noise for a whole batch, which several devices do not share; run it on one"
        )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        forget, numerics = request.forget, request.numerics
        reached = 0.0 if request.whole_classes else accuracy(model, request.unseen, numerics)
        examples = join(forget, self._kept(request))
        teacher = frozen(model, numerics)
        optimizer = self.optimiser_over(model)
        order, draw = request.generator("order"), request.generator("gumbel")
        for epoch in range(self.epochs):
            now = accuracy(model, forget, numerics)
            if now - reached <= _STOP:
                request.meter.write(epoch=epoch + 1, forget_accuracy=now)
                break
            tau = smoothing_temperature(self.alpha, now, reached)
            objective = SmoothedTeacher(teacher, len(forget), tau, self.retain_temperature, draw)
            loss = self.fit(
                model, examples, objective, request, epochs=1, optimizer=optimizer, order=order,
                progress=request.stage(epoch / self.epochs, (epoch + 1) / self.epochs),
            )  # fmt: skip
            request.meter.write(epoch=epoch + 1, temperature=tau, forget_accuracy=now, loss=loss)
        request.progress(1.0)
        return model

    def _kept(self, request: Request) -> Examples:
        retain = request.retain
        count = round(self.retain_share * len(retain))
        chosen = torch.randperm(len(retain), generator=request.generator("retain share"))[:count]
        return retain.select(chosen)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes over a tenth to forget and the share of the rest, which the original sees too."""
        return self.epochs * (0.1 + 0.9 * self.retain_share) * 4 / 3
