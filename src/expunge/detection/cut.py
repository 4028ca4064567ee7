"""How many of the most suspicious examples are named."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_STAND_OUT = 0.1
"""Level of the test whether known examples are ranked above the others; a few that are not may be bad luck."""
_LIMIT = 1.0
"""Standard errors by which a recall is lowered before it is trusted: one known example on top says little."""

_ENOUGH = 0.2
"""Share of the known ones above a cut from which the numbers there are more than chance."""
_ALONE = 2
"""Known ones above a cut below which it may be the luck of one that stands among the very first."""


@dataclass(frozen=True)
class Cut:
    """Where a ranking is cut by what is known.

    Attributes:
        count: rows above the cut, the known ones apart.
        recall: share of the known ones above it.
        merit: recall squared (its lower limit) over the share of rows that are named; 1 says nothing.
    """

    count: int
    recall: float
    merit: float


def stand_out(scores: Tensor, known: Tensor) -> bool:
    """Whether known examples, bool (N,), have higher ``scores`` (N,) than the others: Mann and Whitney, at 10 %."""
    from scipy.stats import mannwhitneyu  # takes seconds to import

    mine, others = scores[known].numpy(), scores[~known].numpy()
    return bool(mannwhitneyu(mine, others, alternative="greater").pvalue <= _STAND_OUT)


def known_cut(scores: Tensor, known: Tensor) -> Cut:
    """Return the cut with the largest r^2 / q, just below the score of a known example.

    r is the share of the known ones above, q that of all the others: r^2 / q is proportional to F1 squared where
    the known ones are a random draw of the bad ones. r is its lower limit (Wilson's, one standard error). Cuts above
    fewer than a fifth of the known ones, or one alone, are left out.

    Args:
        scores: float (N,), higher is more suspicious.
        known: bool (N,), at least one.

    Source: Lee and Liu, ICML 2003.
    """
    mine, others = scores[known].sort(descending=True).values, scores[~known].sort().values
    m = len(mine)
    recall = torch.arange(1, m + 1, dtype=torch.float64) / m
    above = len(others) - torch.searchsorted(others, mine, side="left")
    share = above.clamp(min=1).double() / len(others)
    merit = lower_limit(recall, m).square() / share
    enough = recall >= max(_ENOUGH, min(_ALONE, m) / m)
    best = int(merit.masked_fill(~enough, -1.0).argmax())
    return Cut(int(above[best]), float(recall[best]), float(merit[best]))


def most_errors(scores: Tensor, known: Tensor) -> float:
    """Return how many bad ones there are among the others at most, by the known ones.

    The share of bad ones is at most q / r at every cut, since a cut that holds the share r of them names no fewer; the
    bound is tight where all that is named is bad. r is its lower limit, and the number above is raised by a standard
    error. Cuts above fewer than a fifth of the known ones are left out.

    Source: Blanchard, Lee, Scott, JMLR 2010 (the largest proportion that two samples allow).
    """
    mine, others = scores[known].sort(descending=True).values, scores[~known].sort().values
    recall = torch.arange(1, len(mine) + 1, dtype=torch.float64) / len(mine)
    above = (len(others) - torch.searchsorted(others, mine, side="left")).double()
    bound = (above + above.sqrt()) / lower_limit(recall, len(mine)).clamp(min=1e-9)
    return min(float(len(others)), float(bound[recall >= _ENOUGH].min()))


def lower_limit(share: Tensor, n: int) -> Tensor:
    """Return Wilson's lower limit of shares of ``n``, one standard error below."""
    z = _LIMIT
    centre = share + z * z / (2 * n)
    spread = z * (share * (1 - share) / n + z * z / (4 * n * n)).sqrt()
    return ((centre - spread) / (1 + z * z / n)).clamp(min=0)


def upper_limit(share: Tensor, n: int) -> Tensor:
    """Return Wilson's upper limit of shares of ``n``, one standard error above."""
    return 1 - lower_limit(1 - share, n)
