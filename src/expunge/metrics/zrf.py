"""Zero-retrain forgetting: how much the model resembles an untrained one on the forget set."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.metrics.base import Evaluated, Metric
from expunge.metrics.beside_retrained import js_divergence
from expunge.training.initialisation import reinitialise
from expunge.training.loop import predict
from expunge.training.numerics import Numerics


def zrf_score(logits: Tensor, untrained: Tensor, *, legacy: bool = False) -> float:
    """ZRF = 1 - mean over D_f of JS(M(x), T_d(x)), in [1 - log 2, 1] with JS in nats.

    Symbols: M -> ``logits`` (N, C), T_d -> ``untrained`` (N, C).

    Args:
        logits: of the model on the forget set.
        untrained: of a randomly initialised network on the same examples.
        legacy: with the divergence of the published code, see :func:`js_divergence`; it brings the score
            near 1 for any model that has many classes.

    Raises:
        InvalidInput: shapes that differ, no example, or logits that are not finite.

    Source: Chundawat et al., AAAI 2023.
    """
    return 1 - js_divergence(logits, untrained, legacy=legacy)


def untrained_copy(model: nn.Module, generator: torch.Generator, numerics: Numerics) -> nn.Module:
    """Return a copy of ``model`` with every parameter drawn anew from ``generator``.

    The same generator state gives the same network on every device.

    Raises:
        InvalidInput: a module of the model owns parameters that it cannot draw anew.
    """
    # Drawn on the CPU: an accelerator has a random state of its own.
    made = copy.deepcopy(model).cpu()
    reinitialise(made, generator)
    return numerics.place(made)


@dataclass(frozen=True, kw_only=True)
class ZRF(Metric):
    """Zero-retrain forgetting: 1 - JS between the model and an untrained network on D_f.

    The aim is the retrained model's score, not 1: a model that answers at random on D_f is told apart.

    Args:
        seed: of the untrained network; models of one architecture are compared with the same one.
        legacy: with the divergence of the published code; only for comparing with published tables.
    """

    name = "zrf"
    better = "reference"
    source = "Chundawat et al., AAAI 2023"

    seed: int = 0
    legacy: bool = False

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the score on the forget set; not defined for a model that cannot be drawn anew."""
        draw = torch.Generator().manual_seed(self.seed)
        untrained = untrained_copy(evaluated.model, draw, evaluated.numerics)
        logits = predict(untrained, evaluated.problem.split.forget, evaluated.numerics).cpu()
        return zrf_score(evaluated.forget.logits, logits, legacy=self.legacy)
