"""RULI: the per-example attack on the examples that are easiest to attack, in two games."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.klom import check_populations
from expunge.metrics.ulira import PerExampleAttack, leave_one_out


def memorisation(confidences: Tensor, trained: Tensor) -> Tensor:
    """How much a model's answer to an example depends on having been trained on it: float64 (E,), in [-1, 1].

    mem(x) = mean of p_y over the models trained on x - mean of p_y over the others.

    Args:
        confidences: float (M, E), p_y of model m, before any unlearning.
        trained: bool (M, E), whether x was among the training examples of m.

    Raises:
        InvalidInput: shapes that differ, or an example that all or none of the models were trained on.

    Source: Feldman and Zhang, NeurIPS 2020 (arXiv 2008.03703), equation 1.
    """
    if confidences.ndim != 2 or confidences.shape != trained.shape or trained.dtype != torch.bool:
        raise InvalidInput(
            "confidences float (models, examples) and bools of the same shape are expected, got "
            f"{tuple(confidences.shape)} and {trained.dtype} {tuple(trained.shape)}"
        )
    if 0 in trained.shape or bool((trained.all(0) | ~trained.any(0)).any()):
        raise InvalidInput(
            "every example needs a model that was trained on it and one that was not; train more models"
        )
    p = confidences.double()
    inside = torch.where(trained, p, 0.0).sum(0) / trained.sum(0)
    outside = torch.where(trained, 0.0, p).sum(0) / (~trained).sum(0)
    return inside - outside


def vulnerable(memorised: Tensor, share: float) -> Tensor:
    """Positions int64 (V,), ascending, of the ``share`` of examples that are memorised most; at least one.

    Raises:
        InvalidInput: no examples, or a share outside (0, 1].
    """
    if memorised.ndim != 1 or len(memorised) == 0 or not 0 < share <= 1:
        raise InvalidInput(
            f"memorisation (E,) of at least one example and a share in (0, 1] are expected, got "
            f"{tuple(memorised.shape)} and {share:g}"
        )
    count = max(1, math.floor(share * len(memorised) + 1e-9))
    return memorised.argsort(descending=True, stable=True)[:count].sort().values


def privacy_game(unlearned: Tensor, inside: Tensor, targets: Tensor) -> PerExampleAttack:
    """Was the target trained on and unlearned, or never seen? U-LiRA on the targets.

    Args:
        unlearned: float (M, E), phi of the models after unlearning.
        inside: bool (M, E), whether x was trained on and unlearned; else it was never trained on.
        targets: int64 (V,), which examples are attacked; see :func:`vulnerable`.

    Raises:
        InvalidInput: as :func:`expunge.metrics.ulira.leave_one_out`.

    Source: Naderloui et al., USENIX Security 2025 (arXiv 2506.13009).

    Departures: densities are Gaussian, and the models attacked are those the densities come from, each
    left out of its own fit.
    """
    return leave_one_out(unlearned[:, targets], inside[:, targets])


def efficacy_game(unlearned: Tensor, retrained: Tensor, targets: Tensor) -> PerExampleAttack:
    """Is the model an unlearned one or one retrained without the target?

    Args:
        unlearned: float (N, E), phi of models that were trained on all targets and unlearned them.
        retrained: float (M, E), phi of models that were never trained on them.
        targets: int64 (V,), which examples are attacked; see :func:`vulnerable`.

    Raises:
        InvalidInput: populations that do not fit together, or fewer than three models in one of them.

    Source and departures: those of :func:`privacy_game`.
    """
    check_populations(unlearned, retrained)
    scores = torch.cat([unlearned, retrained])[:, targets]
    is_unlearned = torch.arange(len(scores), device=scores.device) < len(unlearned)
    return leave_one_out(scores, is_unlearned[:, None].expand_as(scores))
