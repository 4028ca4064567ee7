"""Gaussian unlearning score: noise added to the forget images before training, sought in the gradient.

To use it, draw noise (:func:`draw_noise`), train on :func:`noised` examples, unlearn, and give clean images
and noise to :class:`GaussianScore`. It needs no retrained model: without memory the statistic is N(0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples, Source
from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, Metric, NotDefined, Value
from expunge.training.loop import training_mode
from expunge.training.numerics import Numerics


def draw_noise(shape: tuple[int, ...], epsilon: float, generator: torch.Generator) -> Tensor:
    """xi_i ~ N(0, epsilon^2 I): float32 of ``shape`` (F, C, H, W), on the CPU.

    Args:
        shape: one row for each forget image.
        epsilon: standard deviation, in units of the normalised input.
        generator: CPU generator.

    Raises:
        InvalidInput: ``epsilon`` is not positive.
    """
    _check_epsilon(epsilon)
    return epsilon * torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class NoisedSource:
    """A source whose inputs at ``rows`` carry noise, added after any augmentation.

    Args:
        base: the source without noise.
        rows: int64 (F,), different rows of ``base``.
        noise: float (F, ...), added to them in that order.
    """

    base: Source
    rows: Tensor
    noise: Tensor

    @property
    def device(self) -> torch.device:
        """Where the inputs live."""
        return self.base.device

    def __len__(self) -> int:
        return len(self.base)

    @cached_property
    def _entry(self) -> Tensor:
        """Row of the noise for each row of the base, -1 for none."""
        entry = torch.full((len(self.base),), -1, device=self.device)
        entry[self.rows.to(self.device)] = torch.arange(len(self.rows), device=self.device)
        return entry

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the inputs of ``rows``, with their noise."""
        inputs = self.base.fetch(rows, generator).clone()
        entry = self._entry[rows]
        carries = entry >= 0
        inputs[carries] += self.noise[entry[carries].to(self.noise.device)].to(inputs)
        return inputs


def noised(train: Examples, positions: Tensor, noise: Tensor) -> Examples:
    """Return ``train`` with ``noise`` added to the examples at ``positions``.

    Args:
        train: N examples.
        positions: int64 (F,), of the forget set in ``train``.
        noise: float (F, ...) of the inputs' shape, row by row for ``positions``.

    Raises:
        InvalidInput: not one row of noise for each position.
    """
    if len(positions) != len(noise) or len(positions) == 0:
        raise InvalidInput(
            f"one row of noise for each forget example is expected, got {len(noise)} and {len(positions)}"
        )
    source = NoisedSource(train.source, train.index[positions.to(train.device)], noise)
    return replace(train, source=source)


def input_gradients(
    model: nn.Module, examples: Examples, numerics: Numerics, batch_size: int = 256
) -> Tensor:
    """Gradient of each example's cross-entropy by its own input, evaluation mode: float32 (N, ...), on the CPU.

    The parameters' gradients are left as they are.

    Raises:
        InvalidInput: no examples.
    """
    found: list[Tensor] = []
    with training_mode(model, False):
        for batch in examples.batches(batch_size):
            x = numerics.place_inputs(batch.x).detach().requires_grad_()
            with torch.enable_grad(), numerics.autocast():
                logits = model(x)
                # a sum: in evaluation mode no example's loss depends on another's input
                loss = F.cross_entropy(logits.float(), batch.y.to(logits.device), reduction="sum")
            found.append(torch.autograd.grad(loss, x)[0].float().cpu())
    if not found:
        raise InvalidInput("gradients of no examples were asked for; check that the set is not empty first")
    return torch.cat(found)


def noise_statistics(gradients: Tensor, noise: Tensor, epsilon: float) -> Tensor:
    """I_i = -<g_i, xi_i> / (epsilon ||g_i||), float64 (F,); N(0, 1) where g_i does not depend on xi_i.

    Learning x_i + xi_i lowers the loss along xi_i, which makes <g_i, xi_i> negative and I_i positive.

    Symbols: g -> ``gradients``, xi -> ``noise``.

    Args:
        gradients: float (F, ...), of the loss by the clean inputs.
        noise: float (F, ...), what was added in training, or fresh noise for comparison.
        epsilon: its standard deviation.

    Raises:
        InvalidInput: shapes that differ, no row, ``epsilon`` not positive, or a gradient that is 0 or not finite.

    Source: Pawelczyk et al., ICLR 2025, arXiv 2406.17216, algorithm 1.

    Departures: the sign is turned, so that memory shifts the mean above 0.
    """
    _check_epsilon(epsilon)
    if gradients.shape != noise.shape or len(gradients) == 0:
        raise InvalidInput(
            "gradients and noise of one shape and at least one row are expected, got "
            f"{tuple(gradients.shape)} and {tuple(noise.shape)}"
        )
    g, xi = gradients.cpu().double().flatten(1), noise.cpu().double().flatten(1)
    norm = g.norm(dim=1)
    broken = ~(norm.isfinite() & (norm > 0))
    if bool(broken.any()):
        raise InvalidInput(
            f"the loss of {int(broken.sum())} of {len(g)} examples has a gradient that is 0 or not finite; "
            "the statistic is not defined for them"
        )
    statistics: Tensor = -(g * xi).sum(1) / (epsilon * norm)
    return statistics


def mean_shift(statistics: Tensor) -> tuple[float, float]:
    """Return (mean of the statistics, its standard error under N(0, 1), 1 / sqrt F).

    Raises:
        InvalidInput: no statistic.
    """
    if len(statistics) == 0:
        raise InvalidInput("the mean of no statistics was asked for; give at least one")
    return float(statistics.double().mean()), 1 / math.sqrt(len(statistics))


def true_positive_rate(statistics: Tensor, false_positive_rate: float = 0.01) -> float:
    """Share of the statistics above the quantile of N(0, 1) that fresh noise exceeds at the given rate.

    Equal to ``false_positive_rate`` in expectation where the noise is forgotten.

    Raises:
        InvalidInput: no statistic, or a rate outside (0, 1).
    """
    if len(statistics) == 0 or not 0 < false_positive_rate < 1:
        raise InvalidInput(
            "at least one statistic and a false positive rate in (0, 1) are expected, got "
            f"{len(statistics)} and {false_positive_rate}"
        )
    threshold = NormalDist().inv_cdf(1 - false_positive_rate)
    return float((statistics > threshold).double().mean())


def _check_epsilon(epsilon: float) -> None:
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InvalidInput(f"epsilon, the standard deviation of the noise, must be positive, got {epsilon}")


@dataclass(frozen=True, kw_only=True)
class GaussianScore(Metric):
    """Gaussian unlearning score: mean of the noise statistic over the forget images; 0 is forgotten.

    "gaussian_score_tpr" is the share of images told from fresh noise at 1 % false positives.

    Args:
        clean: the forget images without noise, with the labels that were trained on.
        noise: float (F, ...), what was added to them in training; without it there is no score.
        epsilon: its standard deviation, in units of the normalised input.
    """

    name = "gaussian_score"
    unit = "standard deviations"
    better = "reference"
    source = "Pawelczyk et al., ICLR 2025, arXiv 2406.17216"

    clean: Examples | None = None
    noise: Tensor | None = None
    epsilon: float = 0.0

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The mean shift with its 95 % interval, and the true positive rate at 1 % false positives.

        Not defined without noise in training.
        """
        if self.clean is None or self.noise is None:
            raise NotDefined("the task added no noise to the forget images before training")
        gradients = input_gradients(evaluated.model, self.clean, evaluated.numerics)
        statistics = noise_statistics(gradients, self.noise, self.epsilon)
        shift, error = mean_shift(statistics)
        half = NormalDist().inv_cdf(0.975) * error
        return {
            self.name: Value(shift, shift - half, shift + half),
            f"{self.name}_tpr": Value(true_positive_rate(statistics)),
        }
