"""Forgetting classes by training on noise in their place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.data.joined import in_memory, join
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.training.loop import cross_entropy, training_mode
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class UNSIR(GradientMethod):
    """Impair the model with noise that stands for the forgotten classes, then repair it with retained data.

    For each forgotten class c a batch of noise z minimises  -CE(f_theta(z), c) + lambda mean ||z||^2,  theta fixed.
    Impair: train on copies of z labelled c beside a sample D_r' of D_r. Repair: train on D_r' alone. No
    forgotten example is read.

    Symbols: lambda -> ``noise_penalty``, D_r' -> ``retain_per_class``.

    Args:
        lr: learning rate of the impairment.
        augment: train on augmented retained inputs; noise is never augmented.
        repair_lr: learning rate of the repair.
        impair_epochs: passes over noise and sample.
        repair_epochs: passes over the sample.
        noise_size: noise inputs for each forgotten class.
        noise_copies: times each noise input enters a pass.
        noise_steps: steps in which the noise is made; 5 rounds of 8 in the paper's code.
        noise_lr: learning rate of the noise (Adam).
        noise_penalty: weight of the squared norm of a noise input.
        retain_per_class: retained examples of each class in the sample.

    Raises:
        InvalidInput: a setting outside its range; inputs that are not floating point.

    Source: Tarun, Chundawat, Mandal, Kankanhalli, IEEE TNNLS 2023, arXiv 2111.08947, algorithm 1.

    Departures: the noise is labelled by its class (the public notebook labels all of it 0); it is made in evaluation
    mode, drawn from N(0, 1) at first. The steps of the noise, its copies and batch size are reconstructed from
    public code; that augmentation is off is our reading of it. Noise of one class is one batch: with few retained
    examples one repair epoch is too short, raise ``repair_epochs``.
    """

    name = "unsir"
    perturbs_inputs = True
    needs = Needs.CLASSES | Needs.RETAIN
    reference = Reference(
        "Fast Yet Effective Machine Unlearning",
        "Tarun, Chundawat, Mandal, Kankanhalli",
        2023,
        "IEEE TNNLS, arXiv 2111.08947",
    )

    lr: float = searched(0.02, 1e-4, 0.1, log=True)
    batch_size: int = 256
    optimiser: str = "adam"
    weight_decay: float = 0.0
    augment: bool = False
    repair_lr: float = searched(0.01, 1e-4, 0.1, log=True)
    impair_epochs: int = 1
    repair_epochs: int = 1
    noise_size: int = 256
    noise_copies: int = 20
    noise_steps: int = 40
    noise_lr: float = 0.1
    noise_penalty: float = 0.1
    retain_per_class: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(
            repair_lr=self.repair_lr,
            impair_epochs=self.impair_epochs,
            repair_epochs=self.repair_epochs,
            noise_size=self.noise_size,
            noise_copies=self.noise_copies,
            noise_steps=self.noise_steps,
            noise_lr=self.noise_lr,
            retain_per_class=self.retain_per_class,
        )
        if not (self.noise_penalty >= 0 and math.isfinite(self.noise_penalty)):
            raise InvalidInput(f"noise_penalty must be at least 0 and finite, got {self.noise_penalty}")

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """At CIFAR-10's size: 9,000 retained and 5,120 noise inputs, then the former again."""
        return 0.3 * self.impair_epochs + 0.2 * self.repair_epochs

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse inputs in which noise cannot be written."""
        x = next(request.retain.batches(1)).x
        if not x.is_floating_point():
            raise InvalidInput(
                f"noise is made by gradient steps on inputs, and these are {x.dtype}; give floating-point inputs"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Make noise, impair, repair; in place, and return ``model``."""
        sample = self.sample(request)
        parts = []
        for label in request.classes:
            noise = self.noise(model, label, request)
            copies = torch.arange(len(noise), device=noise.device).repeat(self.noise_copies)
            labels = torch.full((len(noise),), label)
            parts.append(in_memory(noise, labels, request.n_classes).select(copies))
        self.fit(
            model,
            join(*parts, sample),
            cross_entropy,
            request,
            epochs=self.impair_epochs,
            order=request.generator("impair"),
            progress=request.stage(0.0, 0.6),
        )
        self.fit(
            model,
            sample,
            cross_entropy,
            request,
            epochs=self.repair_epochs,
            # Fresh: the moments of the impairment would go on pushing.
            optimizer=replace(self._optimiser(), lr=self.repair_lr).over(model),
            order=request.generator("repair"),
            progress=request.stage(0.6, 1.0),
        )
        return model

    def sample(self, request: Request) -> Examples:
        """Draw up to ``retain_per_class`` retained examples of each class."""
        retain, draw = request.retain, request.generator("retained sample")
        chosen = []
        for label in range(retain.n_classes):
            positions = (retain.labels == label).nonzero().flatten()
            order = torch.randperm(len(positions), generator=draw)[: self.retain_per_class]
            chosen.append(positions[order.to(positions.device)])
        return retain.select(torch.cat(chosen))

    def noise(self, model: nn.Module, label: int, request: Request) -> Tensor:
        """Return noise (noise_size, ...) on which ``model`` has a large loss for ``label``."""
        like = next(request.retain.batches(1)).x
        draw = request.generator("noise", label)
        z = torch.randn(self.noise_size, *like.shape[1:], generator=draw).to(like).requires_grad_(True)
        optimizer = torch.optim.Adam([z], self.noise_lr)
        target = torch.full((len(z),), label, device=z.device)
        # The inputs move, not the weights, so the training loop has no part in this.
        with training_mode(model, False):
            for _ in range(self.noise_steps):
                with request.numerics.autocast():
                    logits = model(request.numerics.place_inputs(z))
                loss = -F.cross_entropy(logits.float(), target)
                loss = loss + self.noise_penalty * z.flatten(1).square().sum(1).mean()
                (z.grad,) = torch.autograd.grad(loss, z)
                optimizer.step()
                request.meter.count(len(z))
        return z.detach()
