"""KLOM: how far the margins of unlearned models are from those of retrained ones, example by example."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from expunge.errors import InvalidInput

Direction = Literal["retrained_first", "unlearned_first"]


def klom(
    unlearned: Tensor,
    retrained: Tensor,
    *,
    bins: int = 20,
    clip: float = 100.0,
    floor: float = 1e-5,
    direction: Direction = "retrained_first",
) -> Tensor:
    """KL divergence between the binned margins of two populations, in nats: float64 (E,).

    m = z_y - log sum_{j != y} exp z_j, clipped to [-c, c]. For each example the range from the least to the
    largest margin of both populations is cut into ``bins`` equal bins, the right edge in the last one; with
    p and q the shares of models in each bin,

        KLOM(x) = KL(p || q) = sum over bins with p > 0 of p log(p / max(q, floor)).

    Symbols: c -> ``clip``. p is the retrained population and q the unlearned one; with
    ``direction="unlearned_first"`` the other way round. The two differ: published programs use both, so
    compare only numbers of one direction. Two finite samples of one distribution have a value above 0,
    which grows as the populations shrink: compare with two halves of the retrained models.

    Args:
        unlearned: float (N, E), margin of model n on example x.
        retrained: float (M, E).
        bins: number of bins.
        clip: largest magnitude of a margin.
        floor: least q, where p is above 0; q is not normalised again.
        direction: which population is p.

    Raises:
        InvalidInput: populations that are empty, do not fit together or hold NaN; a setting out of range.

    Source: Georgiev et al., arXiv 2410.23232, appendix E.1.
    """
    if bins < 1 or not clip > 0 or not 0 < floor < 1 or direction not in get_args(Direction):
        raise InvalidInput(
            f"bins must be at least 1, clip above 0, floor in (0, 1) and direction one of "
            f"{', '.join(get_args(Direction))}; got {bins}, {clip}, {floor} and {direction!r}"
        )
    check_populations(unlearned, retrained)
    first, second = (retrained, unlearned) if direction == "retrained_first" else (unlearned, retrained)
    p_of, q_of = (margins.double().clamp(-clip, clip) for margins in (first, second))
    low = torch.minimum(p_of.amin(0), q_of.amin(0))
    high = torch.maximum(p_of.amax(0), q_of.amax(0))
    width = torch.where(high > low, high - low, 1.0)
    edges = (
        low[:, None] + width[:, None] * torch.arange(bins + 1, dtype=torch.float64, device=low.device) / bins
    )
    p, q = _shares(p_of, edges), _shares(q_of, edges)
    return torch.where(p > 0, p * (p.clamp(min=1e-300) / q.clamp(min=floor)).log(), 0.0).sum(1)


def _shares(margins: Tensor, edges: Tensor) -> Tensor:
    """Share of the models in each bin, float64 (E, bins)."""
    bins = edges.shape[1] - 1
    index = torch.searchsorted(edges, margins.T.contiguous(), right=True) - 1
    # The largest margin is on the last edge, and rounding may put it past it.
    index = index.clamp(0, bins - 1)
    counts = torch.zeros(len(edges), bins, dtype=torch.float64, device=edges.device)
    counts.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))
    return counts / len(margins)


def check_finite(scores: Tensor, models: str = "models") -> None:
    """Raise :class:`InvalidInput` where a model's row of scores (models, examples) is not finite."""
    broken = ~scores.isfinite().all(1)
    if bool(broken.any()):
        raise InvalidInput(
            f"{int(broken.sum())} of {len(scores)} {models} have scores that are not finite; they have diverged, "
            "leave them out or lower their learning rate"
        )


def check_populations(unlearned: Tensor, retrained: Tensor) -> None:
    """Raise :class:`InvalidInput` unless both are finite (models, examples) over the same examples."""
    for name, scores in (("unlearned", unlearned), ("retrained", retrained)):
        if scores.ndim != 2 or 0 in scores.shape:
            raise InvalidInput(
                f"scores (models, examples) of at least one model and one example are expected, got "
                f"{tuple(scores.shape)} of the {name} models"
            )
        check_finite(scores, f"{name} models")
    if unlearned.shape[1] != retrained.shape[1]:
        raise InvalidInput(
            f"both populations are scored on the same examples, got {unlearned.shape[1]} and {retrained.shape[1]}"
        )
