"""U-LiRA: for each example, is a model that unlearned it told from one that never saw it?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.klom import check_finite
from expunge.metrics.roc import Roc

LEAST = 3
"""Models needed on each side of an example: two to estimate a variance and the one that is left out."""
MIN_STD = 1e-3
"""Least standard deviation of a fitted Gaussian, in nats: models that differ by less are not told apart."""


@dataclass(frozen=True, eq=False)
class PerExampleAttack:
    """What a likelihood-ratio attack finds, example by example.

    Args:
        ratios: float64 (M, E), log-likelihood ratio of "inside" to "outside", of model m on example x.
        inside: bool (M, E), the truth the attack guesses at.
    """

    ratios: Tensor
    inside: Tensor

    @cached_property
    def accuracy(self) -> Tensor:
        """Mean of the two rates of right answers at ratio 0, float64 (E,); a ratio of 0 is right by half."""
        right = torch.where(self.inside, self.ratios, -self.ratios)
        score = (right > 0).double() + (right == 0).double() / 2
        return (_mean_where(score, self.inside) + _mean_where(score, ~self.inside)) / 2

    @cached_property
    def auc(self) -> Tensor:
        """Area under the ROC curve over the models, float64 (E,)."""
        return torch.tensor([curve.auc() for curve in self._curves()], dtype=torch.float64)

    def tpr_at(self, fpr: float) -> Tensor:
        """True positive rate of each example at a false positive rate of at most ``fpr``, float64 (E,).

        Raises:
            InvalidInput: an example has fewer than 1 / ``fpr`` models outside.
        """
        return torch.tensor([curve.tpr_at(fpr) for curve in self._curves()], dtype=torch.float64)

    def pooled(self) -> Roc:
        """One ROC curve of all (model, example) pairs under one threshold; it reaches lower rates."""
        return Roc(self.ratios[self.inside], self.ratios[~self.inside])

    def _curves(self) -> list[Roc]:
        pairs = zip(self.ratios.T, self.inside.T, strict=True)
        return [Roc(ratios[inside], ratios[~inside]) for ratios, inside in pairs]


def leave_one_out(scores: Tensor, inside: Tensor, *, min_std: float = MIN_STD) -> PerExampleAttack:
    """Attack every model of a population with Gaussians fitted to all the others.

    For example x and victim m, with phi = log p_y - log sum_{j != y} p_j of every model but m:

        Lambda(m, x) = log N(phi_m; mu_in, s_in) - log N(phi_m; mu_out, s_out)

    where (mu, s) are mean and standard deviation (n - 1 in the denominator) over the models inside and
    outside. m is in neither fit. Lambda above 0 is the guess "inside".

    Where nothing distinguishes the two sides the accuracy lies a little **below** 1/2: a model left out of
    its own side's fit is, by that, a little nearer to the other side's. Compare with the same attack on two
    halves of the retrained models.

    Args:
        scores: float (M, E), phi of model m on example x; see :func:`expunge.metrics.attack_scores.logit_gap`.
        inside: bool (M, E). U-LiRA: x was trained on and unlearned; outside: x was never trained on and the
            same pipeline unlearned other examples.
        min_std: least s, a guard against models that all agree.

    Raises:
        InvalidInput: shapes that differ, scores that are not finite, or fewer than three models on either
            side of an example.

    Source: Hayes, Shumailov, Triantafillou, Khalifa, Papernot, arXiv 2403.01218, section 4.

    Departures: the published attack may hold the victim in its own fit; here it is left out.
    """
    _check(scores, inside)
    phi = scores.double()
    outside = ~inside
    of_member = _log_density(phi, inside, min_std, True) - _log_density(phi, outside, min_std, False)
    of_other = _log_density(phi, inside, min_std, False) - _log_density(phi, outside, min_std, True)
    return PerExampleAttack(torch.where(inside, of_member, of_other), inside)


def _log_density(phi: Tensor, side: Tensor, min_std: float, without_self: bool) -> Tensor:
    """Log-density of every score under the Gaussian of ``side``, with or without the score's own model."""
    count = side.sum(0).double()
    mean = _mean_where(phi, side)
    # about the mean, so that nothing cancels
    centred = phi - mean
    squares = torch.where(side, centred.square(), 0.0).sum(0)
    if without_self:
        # leaving x out of n moves the mean by -(x - mean) / (n - 1) and the squares by -(x - mean)^2 n / (n - 1)
        squares = (squares - centred.square() * count / (count - 1)).clamp(min=0.0)
        centred = centred * count / (count - 1)
        count = count - 1
    std = (squares / (count - 1)).sqrt().clamp(min=min_std)
    # The constant of the density is the same on both sides.
    return -std.log() - (centred / std).square() / 2


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(0) / mask.sum(0)


def _check(scores: Tensor, inside: Tensor) -> None:
    if scores.ndim != 2 or scores.shape != inside.shape or scores.shape[1] == 0 or inside.dtype != torch.bool:
        raise InvalidInput(
            "scores float (models, examples) and bools of the same shape, at least one example, are expected; "
            f"got {tuple(scores.shape)} and {inside.dtype} {tuple(inside.shape)}"
        )
    check_finite(scores)
    sides = torch.stack([inside.sum(0), (~inside).sum(0)])
    if int(sides.min()) < LEAST:
        example = int(sides.min(0).values.argmin())
        raise InvalidInput(
            f"the attack needs at least {LEAST} models on each side of every example, but example {example} has "
            f"{int(sides[0, example])} inside and {int(sides[1, example])} outside, of {len(scores)}; train more "
            "models (64 with half of the examples each are customary)"
        )
