"""Residual knowledge: are the neighbours of forgotten examples still recognised?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric, Value
from expunge.training.loop import training_mode
from expunge.training.numerics import Numerics


@torch.no_grad()
def recognised(
    models: Sequence[nn.Module],
    examples: Examples,
    numerics: Numerics,
    *,
    tau: float,
    draws: int,
    generator: torch.Generator,
    batch_size: int = 512,
) -> Tensor:
    """Number of perturbations of each example that each model gets right: int64 (M, N), on the CPU.

    x' = x + tau z, z ~ N(0, I); all models see the same perturbations, in evaluation mode.

    Args:
        models: M classifiers.
        examples: N examples with the labels that count as right.
        numerics: where to compute.
        tau: standard deviation of the perturbation, in units of the normalised input.
        draws: perturbations of each example.
        generator: CPU generator.
        batch_size: examples at once.

    Raises:
        InvalidInput: no example, a negative ``tau``, or no draw.
    """
    if len(examples) == 0 or draws < 1 or not (tau >= 0 and math.isfinite(tau)):
        raise InvalidInput(
            "at least one example, one draw and a finite tau of 0 or more are expected, got "
            f"{len(examples)}, {draws} and {tau}"
        )
    counts: list[Tensor] = []
    with ExitStack() as modes:
        for model in models:
            modes.enter_context(training_mode(model, False))
        for batch in examples.batches(batch_size):
            right = torch.zeros(len(models), len(batch), dtype=torch.int64)
            for _ in range(draws):
                shift = tau * torch.randn(batch.x.shape, generator=generator)
                x = numerics.place_inputs(batch.x + shift.to(batch.x))
                for number, model in enumerate(models):
                    with numerics.autocast():
                        logits = model(x).float()
                    hit = (logits.argmax(1).cpu() == batch.y.cpu()) & ~logits.isnan().any(1).cpu()
                    right[number] += hit
            counts.append(right)
    return torch.cat(counts, 1)


def residual_ratio(unlearned: Tensor, retrained: Tensor) -> tuple[float, int]:
    """Return (mean of r_i = u_i / a_i over the examples with a_i > 0, number of examples without).

    Above 1, neighbours of forgotten examples are recognised more often than by a model that never saw them.

    Symbols: u -> ``unlearned``, a -> ``retrained``, perturbations recognised, int64 (N,).

    Raises:
        InvalidInput: lengths that differ, or a retrained model that recognises no perturbation of any.

    Source: Hsu et al., NeurIPS 2025, arXiv 2601.22359.

    Departures: examples of which the retrained model recognises no perturbation have no ratio; they are
    left out and counted.
    """
    if unlearned.shape != retrained.shape or unlearned.ndim != 1:
        raise InvalidInput(
            "one count for each example and model is expected, got shapes "
            f"{tuple(unlearned.shape)} and {tuple(retrained.shape)}"
        )
    known = retrained > 0
    if not bool(known.any()):
        raise InvalidInput("the retrained model recognises no perturbation of any forgotten example")
    ratio = float((unlearned[known].double() / retrained[known]).mean())
    return ratio, int((~known).sum())


@dataclass(frozen=True, kw_only=True)
class ResidualKnowledge(Metric):
    """How often noisy forget examples are recognised by the unlearned model, relative to the retrained one.

    r_tau = mean over D_f of Pr[f_u(x') = y] / Pr[f_r(x') = y], x' = x + tau z, z ~ N(0, I), given labels. 1 is the
    aim. "residual_knowledge_left_out" is the share of D_f that has no ratio, because the retrained model
    recognises none of its perturbations; where whole classes are forgotten that is usually all of it.

    Args:
        tau: standard deviation of the noise, in units of the normalised input.
        draws: perturbations of each example.
        seed: of the noise.

    Departures: Gaussian noise only, on normalised inputs, not clipped to the range of pixels.
    """

    name = "residual_knowledge"
    unit = "quotient"
    better = "reference"
    compares = Compares.RETRAINED
    source = "Hsu et al., NeurIPS 2025, arXiv 2601.22359"

    tau: float = 0.1
    draws: int = 100
    seed: int = 0

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The mean ratio, and the share of examples without one."""
        forget = evaluated.problem.split.forget
        unlearned, retrained = recognised(
            [evaluated.model, evaluated.retrained.model],
            forget,
            evaluated.numerics,
            tau=self.tau,
            draws=self.draws,
            generator=torch.Generator().manual_seed(self.seed),
        )
        ratio, left_out = residual_ratio(unlearned, retrained)
        return {self.name: Value(ratio), f"{self.name}_left_out": Value(left_out / len(forget))}
