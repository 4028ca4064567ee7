"""Forgetting in the remain-preserving manifold: fast steps of forgetting and repair, slow steps of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Batch, Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.importance import fisher_importances, trainable
from expunge.training.batchnorm import forget_statistics
from expunge.training.loop import Loss, cross_entropy, silent
from expunge.training.recipe import Optimiser, Recipe

_FLOOR = 1e-6
"""The least loss that a coefficient is made of: float32 cross-entropies reach 0 exactly."""


def coefficients(losses: Tensor, temperature: float, done: float) -> Tensor:
    """eps_i = (1 - t / T) / l_i^lambda, without gradient: float32 (B,).

    Symbols: l -> ``losses``, lambda -> ``temperature``, t / T -> ``done``.
    """
    return (1 - done) * losses.detach().float().clamp_min(_FLOOR) ** -temperature


@dataclass(frozen=True)
class WeightedAscent:
    """Objective: -mean of eps_i l_i over a batch of the forget set.

    Args:
        temperature: lambda.
        done: t / T.
    """

    temperature: float
    done: float

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean over the batch."""
        with forget_statistics(model, batch):
            losses = F.cross_entropy(model(batch.x).float(), batch.y, reduction="none")
        return Loss(-(coefficients(losses, self.temperature, self.done) * losses).mean(), len(batch))


def salient(forget: list[Tensor], retain: list[Tensor], threshold: float) -> list[Tensor]:
    """M = [F_f / F_r >= gamma], one Bool tensor for each parameter; never where F_f is 0.

    Symbols: F_f, F_r -> ``forget``, ``retain``, diagonals of the Fisher information; gamma -> ``threshold``.
    """
    return [
        (of_forget >= threshold * of_retain) & (of_forget > 0)
        for of_forget, of_retain in zip(forget, retain, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class SFRon(GradientMethod):
    """Forget with a salient, weighted ascent, repair, and follow the two together slowly (SFR-on).

    for t = 0 .. T - 1:
        theta' = theta_t + beta M * grad of mean over a batch of D_f of eps_i l_i(theta_t)
        theta_r = theta' after T_in steps on batches of D_r
        theta_{t+1} = theta_t - alpha (theta_t - theta_r)
    with eps_i = (1 - t / T) / l_i^lambda held constant, M = [F_f / F_r >= gamma], l the cross-entropy of the
    stored label and F_f, F_r the diagonals of the Fisher information on D_f and D_r.

    Symbols: T -> ``steps``, T_in -> ``inner_steps``, alpha -> ``slow_rate``, beta -> ``forget_lr``,
    lambda -> ``temperature``, gamma -> ``threshold``.

    Args:
        lr: learning rate of the steps on the retain set.
        batch_size: examples a step.
        optimiser: of the steps on the retain set: "sgd", "adam" or "adamw"; fresh for every t.
        momentum: of "sgd".
        weight_decay: L2 on every parameter, in the steps on the retain set.
        augment: train on augmented inputs.
        steps: slow steps.
        inner_steps: steps on the retain set within each.
        forget_lr: learning rate of the ascent.
        slow_rate: how far towards the fast weights a slow step goes, in (0, 1].
        temperature: how strongly a small loss raises an example's weight; 0 weighs all alike.
        threshold: ratio of the Fisher informations from which a parameter takes part in the ascent.
        refresh: slow steps after which the mask is made anew; 0 makes it once.
        fisher_batches: batches of either set that a mask is made of.

    Raises:
        InvalidInput: a setting out of range, or no retain set.

    Source: Huang et al., NeurIPS 2024, arXiv 2409.19732; the batch size is the authors' for CIFAR-10.

    Departures: written from the equations above; the paper's values of all other settings, and how often it
    makes the mask, were not at hand, so the defaults are reconstructed. A diagonal of the Fisher information
    is the mean of squared gradients of batches, of one size for both sets, in evaluation mode. Losses
    below 1e-6 count as 1e-6 in eps. Batch-norm buffers follow the fast weights, only
    parameters move slowly.
    """

    name = "sfron"
    needs = Needs.FORGET | Needs.RETAIN
    reference = Reference(
        "Unified Gradient-Based Machine Unlearning with Remain Geometry Enhancement",
        "Huang, Cheng, Zheng, Wang, He, Li, Huang",
        2024,
        "NeurIPS 2024, arXiv 2409.19732",
    )

    lr: float = searched(0.01, 1e-3, 0.1, log=True)
    batch_size: int = 128
    steps: int = 300
    inner_steps: int = 5
    forget_lr: float = searched(0.02, 1e-3, 0.5, log=True)
    slow_rate: float = 1.0
    temperature: float = searched(0.5, 0.0, 1.0)
    threshold: float = searched(1.0, 0.1, 10.0, log=True)
    refresh: int = 50
    fisher_batches: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(steps=self.steps, inner_steps=self.inner_steps, forget_lr=self.forget_lr)
        positive(threshold=self.threshold, fisher_batches=self.fisher_batches)
        if not 0 < self.slow_rate <= 1:
            raise InvalidInput(
                f"slow_rate must lie in (0, 1], got {self.slow_rate}; 1 takes the fast weights as they are"
            )
        if self.temperature < 0 or self.refresh < 0:
            raise InvalidInput(
                f"temperature and refresh must be at least 0, got {self.temperature} and {self.refresh}; "
                "0 weighs all alike and makes the mask once"
            )

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a request without anything to repair on."""
        if not len(request.retain):
            raise InvalidInput(
                "SFR-on repairs the model on the retain set, got 0 examples; leave some out of the forget set"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        forget, retain = request.forget, request.retain
        trained = list(trainable(model).values())
        forget_rows = drawn(len(forget), min(self.batch_size, len(forget)), request.generator("forget rows"))
        retain_rows = drawn(len(retain), self.inner_steps * self.batch_size, request.generator("retain rows"))
        order = request.generator("order")
        masks: list[Tensor] = []
        for step in range(self.steps):
            if step == 0 or (self.refresh and step % self.refresh == 0):
                masks = self.masks(model, request)
            slow = [parameter.detach().clone() for parameter in trained]
            self.fit(
                model, forget.select(next(forget_rows)), WeightedAscent(self.temperature, step / self.steps),
                request, epochs=1, optimizer=self._masked(model, trained, masks), order=order, progress=silent,
            )  # fmt: skip
            self.fit(
                model, retain.select(next(retain_rows)), cross_entropy,
                request, epochs=1, order=order, progress=silent,
            )  # fmt: skip
            with torch.no_grad():
                for parameter, start in zip(trained, slow, strict=True):
                    parameter.copy_(torch.lerp(start, parameter, self.slow_rate))
            request.progress((step + 1) / self.steps)
        return model

    def masks(self, model: nn.Module, request: Request) -> list[Tensor]:
        """Return M at the present weights, one Bool tensor for each trainable parameter."""
        forget, retain = request.forget, request.retain
        # A squared gradient of a batch falls with its size: only batches of one size compare.
        size = min(self.batch_size, len(forget), len(retain))
        masks = salient(
            self._fisher(model, forget, size, request, "fisher of forget"),
            self._fisher(model, retain, size, request, "fisher of retain"),
            self.threshold,
        )
        kept, count = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
        request.meter.write(salient_share=kept / count)
        return masks

    def _fisher(
        self, model: nn.Module, examples: Examples, size: int, request: Request, role: str
    ) -> list[Tensor]:
        """Mean of the squared gradients of ``fisher_batches`` batches of ``size``, of as many as there are."""
        drawn = torch.randperm(len(examples), generator=request.generator(role))
        taken = examples.select(drawn[: size * min(self.fisher_batches, len(examples) // size)])
        found = fisher_importances(model, taken, request.numerics, request.meter, batch_size=size)
        return list(found.values())

    def _masked(
        self, model: nn.Module, trained: list[nn.Parameter], masks: list[Tensor]
    ) -> torch.optim.Optimizer:
        """Plain gradient steps of the ascent over the salient parameters."""
        optimizer = Optimiser(name="sgd", lr=self.forget_lr, momentum=0, weight_decay=0).over(model)

        def cut(*_: object) -> None:
            for parameter, mask in zip(trained, masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)

        optimizer.register_step_pre_hook(cut)
        return optimizer

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The steps on the retain set and the ascents, over 50,000 examples."""
        return self.steps * (self.inner_steps + 1) * self.batch_size / 50_000


def drawn(count: int, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Yield ``size`` positions below ``count`` without end; each appears once before any appears again."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=draw)])
        yield waiting[:size]
        waiting = waiting[size:]
