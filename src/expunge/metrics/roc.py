"""How well a score tells members from non-members: area under the ROC curve, and its low end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from expunge.errors import InvalidInput


class Roc:
    """The ROC curve of a score that is higher for members.

    Args:
        members: float (M,), scores of examples that were trained on.
        others: float (O,), scores of examples that were not.

    Raises:
        InvalidInput: one of them is empty, not 1-D, or holds NaN.
    """

    def __init__(self, members: Tensor, others: Tensor) -> None:
        for name, scores in (("members", members), ("non-members", others)):
            if scores.ndim != 1 or len(scores) == 0 or bool(scores.isnan().any()):
                raise InvalidInput(
                    f"the scores of the {name} must be 1-D, at least one and none of them NaN, got shape "
                    f"{tuple(scores.shape)} with {int(scores.isnan().sum())} NaN"
                )
        both = torch.cat([members.detach().cpu().double(), others.detach().cpu().double()])
        distinct, rank = torch.unique(both, return_inverse=True)
        self._distinct = len(distinct)
        self._members, self._others = rank[: len(members)], rank[len(members) :]

    @cached_property
    def _counts(self) -> tuple[Tensor, Tensor]:
        """Members and others at each distinct score, ascending."""
        members = torch.bincount(self._members, minlength=self._distinct)
        return members, torch.bincount(self._others, minlength=self._distinct)

    def auc(self) -> float:
        """Return P(member's score > other's) + P(they are equal) / 2, in [0, 1]."""
        members, others = self._counts
        below = others.cumsum(0) - others
        twice = (members * (2 * below + others)).sum()
        return float(twice.double() / (2 * len(self._members) * len(self._others)))

    def tpr_at(self, fpr: float) -> float:
        """Return the highest true positive rate of a threshold whose false positive rate is at most ``fpr``.

        The thresholds are "score at least t" for every t. Examples of one score fall on one side together,
        and nothing is interpolated between two thresholds.

        Args:
            fpr: false positive rate, in (0, 1].

        Raises:
            InvalidInput: ``fpr`` out of range, or too few non-members for one false positive to be within it.
        """
        if not 0 < fpr <= 1:
            raise InvalidInput(f"a false positive rate must lie in (0, 1], got {fpr:g}")
        # 0.29 * 100 is a little below 29.
        allowed = math.floor(fpr * len(self._others) + 1e-9)
        if allowed < 1:
            raise InvalidInput(
                f"a false positive rate of {fpr:g} needs at least {math.ceil(1 / fpr - 1e-9)} non-members, "
                f"got {len(self._others)}"
            )
        members, others = self._counts
        at_least = others.flip(0).cumsum(0)  # false positives as the threshold goes down the distinct scores
        caught = members.flip(0)[at_least <= allowed].sum()
        return float(caught.double() / len(self._members))

    def resampled(self, generator: torch.Generator) -> Roc:
        """Return the curve of as many members and others, each drawn with replacement from their own."""
        made = Roc.__new__(Roc)
        made._distinct = self._distinct
        made._members = _drawn(self._members, generator)
        made._others = _drawn(self._others, generator)
        return made


def bootstrap(
    roc: Roc, statistics: Sequence[Callable[[Roc], float]], generator: torch.Generator, resamples: int = 1000
) -> list[tuple[float, float]]:
    """Return the 95 % percentile interval of each statistic, members and non-members resampled apart.

    It is the uncertainty of a finite sample of examples for one model; that of another training is not in
    it. A statistic at its limit (all or none caught) has an interval of width 0, which is too narrow.

    Args:
        roc: the curve.
        statistics: of a curve; each sees the same resamples.
        generator: CPU generator of the draws.
        resamples: how many.

    Raises:
        InvalidInput: fewer than 100 resamples.
    """
    if resamples < 100:
        raise InvalidInput(f"a 95 % bootstrap interval needs at least 100 resamples, got {resamples}")
    found = torch.empty(resamples, len(statistics), dtype=torch.float64)
    for row in found:
        again = roc.resampled(generator)
        row.copy_(torch.tensor([statistic(again) for statistic in statistics], dtype=torch.float64))
    ends = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return [(float(low), float(high)) for low, high in ends.T]


def _drawn(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randint(len(values), values.shape, generator=generator)]
