"""Forgetting in the remain-preserving manifold: fast steps of forgetting and repair, slow steps of both."""

from __future__ import annotations

import math
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
from expunge.training.loop import Loss, cross_entropy, fit
from expunge.training.numerics import Devices
from expunge.training.recipe import Recipe

_FLOOR = 1e-6
"""The least loss that a coefficient is made of: float32 cross-entropies reach 0 exactly."""


def coefficients(losses: Tensor, temperature: float) -> Tensor:
    """eps_i = B l_i^-lambda / sum_j l_j^-lambda, lambda the temperature, without gradient: float32 (B,) of mean one."""
    powers = losses.detach().float().clamp_min(_FLOOR) ** -temperature
    return powers / powers.mean()


def annealed(step: int, steps: int) -> float:
    """(1 + cos(pi step / steps)) / 2, from 1 down to just above 0."""
    return (1 + math.cos(math.pi * step / steps)) / 2


@dataclass
class _Phases:
    """Objective of the ascent and of the repair, whichever is due.

    Args:
        temperature: lambda.
        weight: of the ascent's loss now; 0 while the model is repaired.
    """

    temperature: float
    weight: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return -weight * mean of eps_i l_i over a batch of D_f, or the cross-entropy of one of D_r."""
        if not self.weight:
            return cross_entropy(model, batch)
        with forget_statistics(model, batch):
            losses = F.cross_entropy(model(batch.x).float(), batch.y, reduction="none")
        return Loss(-self.weight * (coefficients(losses, self.temperature) * losses).mean(), len(batch))


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

    for t = 0 .. T - 1, with one optimiser for all steps, its learning rate eta_t falling by half a cosine:
        theta' = step from theta_t along clip(M * grad of -beta_t mean over a batch of D_f of eps_i l_i)
        theta_r = theta' after T_in steps on batches of D_r
        theta_{t+1} = theta_t - alpha (theta_t - theta_r)
    with eps_i = B l_i^-lambda / sum_j l_j^-lambda held constant, beta_t = beta (1 + cos(pi t / T)) / 2,
    M = [F_f / F_r >= gamma] made once at the start, l the cross-entropy of the given label and F_f, F_r the
    diagonals of the Fisher information on D_f and D_r; clip scales a gradient down to the norm c.

    Symbols: T -> ``steps``, T_in -> ``inner_steps``, alpha -> ``slow_rate``, beta -> ``forget_weight``, c -> ``clip``,
    lambda -> ``temperature``, gamma -> ``threshold``.

    Args:
        lr: learning rate at the start.
        momentum: of "sgd"; it carries from the ascent into the repair.
        steps: slow steps.
        inner_steps: steps on the retain set within each.
        forget_weight: of the ascent's loss at the start.
        clip: largest norm of the ascent's gradient.
        slow_rate: how far towards the fast weights a slow step goes, in (0, 1].
        temperature: how strongly a small loss raises an example's weight; 0 weighs all alike.
        threshold: ratio of the Fisher informations from which a parameter takes part in the ascent.

    Raises:
        InvalidInput: a setting out of range, or no retain set.

    Source: Huang et al., NeurIPS 2024, arXiv 2409.19732, and the authors' code, whose values for a tenth of CIFAR-10
    are the defaults.

    Departures: a diagonal of the Fisher information is the mean of squared gradients of batches of one size for both
    sets (published: the last batch of either is smaller, and so is the only one of a short forget set), in evaluation
    mode and without augmentation. Losses below 1e-6 count as 1e-6 in eps. Momentum and decay also move the parameters
    outside M in a step of the ascent, as published. Batch-norm buffers follow the fast weights, only parameters move
    slowly.
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
    forget_weight: float = searched(25.0, 1.0, 100.0, log=True)
    clip: float = 7.0
    slow_rate: float = 1.0
    temperature: float = searched(0.5, 0.0, 1.0)
    threshold: float = searched(1.0, 0.1, 10.0, log=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(steps=self.steps, inner_steps=self.inner_steps, forget_weight=self.forget_weight)
        positive(threshold=self.threshold, clip=self.clip)
        if not 0 < self.slow_rate <= 1:
            raise InvalidInput(
                f"slow_rate must lie in (0, 1], got {self.slow_rate}; 1 takes the fast weights as they are"
            )
        if self.temperature < 0:
            raise InvalidInput(f"temperature must be at least 0, got {self.temperature}; 0 weighs all alike")

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a request without anything to repair on."""
        if not len(request.retain):
            raise InvalidInput(
                "SFR-on repairs the model on the retain set, got 0 examples; leave some out of the forget set"
            )

    def check_devices(self, devices: Devices) -> None:
        """Refuse: the weights of a batch are relative to each other."""
        raise InvalidInput(
            "SFR-on weighs a batch's examples against each other, which several devices do not share; run it on one"
        )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        trained = list(trainable(model).values())
        phases = _Phases(self.temperature)
        optimizer = self.optimiser_over(model)
        self._hold_back(optimizer, trained, self.masks(model, request), phases)
        of_one = self.inner_steps + 1

        def schedule(step: int, steps: int) -> float:
            # The ascent has the rate of the repair step that follows it.
            slow, fast = divmod(step, of_one)
            return annealed(slow * self.inner_steps + max(0, fast - 1), self.steps * self.inner_steps)

        fit(
            model, [self._alternate(trained, request, phases)], phases, optimizer, request.numerics, request.meter,
            schedule=schedule, steps=self.steps * of_one, progress=request.progress,
        )  # fmt: skip
        return model

    def _alternate(self, trained: list[nn.Parameter], request: Request, phases: _Phases) -> Iterator[Batch]:
        """Yield a batch to forget and those to repair on, again and again; make the slow step after each round."""
        forget, retain = request.forget, request.retain
        forget_rows = drawn(len(forget), min(self.batch_size, len(forget)), request.generator("forget rows"))
        retain_rows = drawn(len(retain), self.inner_steps * self.batch_size, request.generator("retain rows"))
        order = request.generator("order")
        for step in range(self.steps):
            start = [parameter.detach().clone() for parameter in trained] if self.slow_rate < 1 else []
            phases.weight = self.forget_weight * annealed(step, self.steps)
            yield from self.batches(forget.select(next(forget_rows)), order)
            phases.weight = 0.0
            yield from self.batches(retain.select(next(retain_rows)), order)
            with torch.no_grad():
                for parameter, former in zip(trained, start, strict=False):
                    parameter.copy_(torch.lerp(former, parameter, self.slow_rate))

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
        """Mean of the squared gradients of the batches of ``size``, of as many as there are."""
        order = torch.randperm(len(examples), generator=request.generator(role))
        taken = examples.select(order[: size * (len(examples) // size)])
        found = fisher_importances(model, taken, request.numerics, request.meter, batch_size=size)
        return list(found.values())

    def _hold_back(
        self,
        optimizer: torch.optim.Optimizer,
        trained: list[nn.Parameter],
        masks: list[Tensor],
        phases: _Phases,
    ) -> None:
        """Cut the ascent's gradients to the salient parameters and to the norm ``clip``."""

        def cut(*_: object) -> None:
            if not phases.weight:
                return
            for parameter, mask in zip(trained, masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)
            nn.utils.clip_grad_norm_(trained, self.clip)

        optimizer.register_step_pre_hook(cut)

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
