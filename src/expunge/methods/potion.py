"""Potion: outlier-robust dampening whose strength is searched until the forget set is gone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Reference, Request, chance_threshold, positive, searched
from expunge.methods.importance import Importances, dampen, label_free_importances, trainable
from expunge.training.loop import accuracy
from expunge.training.recipe import Recipe

_START, _TRIES = 25.0, 500
"""Divisor of the first fraction and number of tries of the paper."""
_OFFICIAL_START, _OFFICIAL_TRIES = 1.0, 50
"""Those of the copy in the published code of REM: 25 times coarser, and it gives up sooner."""


@dataclass(frozen=True, kw_only=True)
class Potion(Method):
    """Dampen what matters to the forget set, more and more of it, until the model no longer knows that set.

    1. I_r, I_f: mean over the mini-batches of D_r and of D_f of |gradient of mean_i ||f(x_i)||_2|, f the
       logits, evaluation mode. frac = |D_f| / N / ``start_divisor``.
    2. q = 100 - ln(1 + 100 frac); t = the q-th percentile of I_f / I_r over all parameters.
    3. w <- w * min(1, I_r / I_f) where I_f > t I_r, starting from the weights that were given.
    4. Stop if the accuracy on D_f is at most rho times what it was, or at most ``threshold``; else put the
       weights back, frac <- ``growth`` * frac, and go on from 2, ``tries`` times at most.

    Where no try gets there, the last one is returned; the log has a row for every try, whose "reached" is 1
    where it stopped the search.

    Args:
        rho: share of its accuracy on D_f that the model may keep, in [0, 1).
        threshold: accuracy on D_f that is enough whatever it was before; by default twice chance.
        start_divisor: the first fraction is the share of D_f in the training set over this; by default 25,
            with ``compat="official"`` 1.
        tries: at most this many; by default 500, with ``compat="official"`` 50.
        growth: factor on the fraction after a try, above 1.
        batch_size: examples a mini-batch of the importances, which depend on it.
        augment: take the importances on augmented inputs, where the data has an augmentation.
        compat: "official" for the start and the tries of the copy in the published code of REM.

    Raises:
        InvalidInput: a setting outside its range; no forget set or nothing else; no parameter requires a
            gradient; no importance on D_r is above zero.

    Source: the paper's XALFSSD with PTN; the steps as in arXiv 2505.17730.

    Departures: accuracy is measured without augmentation; frozen parameters are left as they are and do not
    enter the percentile. Reconstructed: ``threshold`` (0.20 in REM, for ten classes) and the batch size;
    rho is searched over 0 to 0.75 in the paper and 0.2 in REM, the default here.
    """

    name = "potion"
    needs = Needs.FORGET | Needs.RETAIN
    touches = "parameters important to the forget set"
    reference = Reference(
        "Potion: Towards Poison Unlearning",
        "Schoepf, Foster, Brintrup",
        2024,
        "DMLR 2024; arXiv 2406.09173",
    )

    rho: float = searched(0.2, 0.0, 0.75)
    threshold: float | None = None
    start_divisor: float | None = None
    tries: int | None = None
    growth: float = 1.1
    batch_size: int = 128
    augment: bool = True
    compat: str | None = None

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        if self.start_divisor is not None:
            positive(start_divisor=self.start_divisor)
        if self.tries is not None and self.tries < 1:
            raise InvalidInput(f"tries must be at least 1, got {self.tries}")
        if not 0 <= self.rho < 1:
            raise InvalidInput(f"rho is the share of the accuracy that may remain, in [0, 1), got {self.rho}")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise InvalidInput(f"threshold is an accuracy in [0, 1), got {self.threshold}")
        if not (self.growth > 1 and math.isfinite(self.growth)):
            raise InvalidInput(f"growth must be above 1, or the search stands still, got {self.growth}")
        if self.compat not in (None, "official"):
            raise InvalidInput(f"compat must be one of (None, 'official'), got {self.compat!r}")

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """One pass over the training set for the importances; the tries are forward passes over D_f."""
        return 1.0

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Search in place and return ``model``."""
        forget = request.forget
        small = self._importances(model, request, "forget")
        rest = self._importances(model, request, "retain")
        ratios = sorted_ratios(small, rest)
        original = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
        chance = chance_threshold(request.n_classes) if self.threshold is None else self.threshold
        enough = max(self.rho * accuracy(model, forget, request.numerics), chance)
        fraction, tries = self._start(len(forget) / len(request.train))
        for number in range(tries):
            if number:
                model.load_state_dict(original, strict=False)
            percent = percentile_of(fraction)
            threshold = percentile(ratios, percent)
            share = dampen(model, small, rest, threshold=threshold)
            remaining = accuracy(model, forget, request.numerics)
            reached = remaining <= enough
            request.meter.write(
                tries=number + 1, percentile=percent, threshold=threshold, share=share,
                forget_accuracy=remaining, reached=float(reached),
            )  # fmt: skip
            if reached:
                break
            fraction *= self.growth
        request.progress(1.0)
        return model

    def _start(self, share: float) -> tuple[float, int]:
        official = self.compat == "official"
        divisor = self.start_divisor or (_OFFICIAL_START if official else _START)
        return share / divisor, self.tries or (_OFFICIAL_TRIES if official else _TRIES)

    def _importances(self, model: nn.Module, request: Request, part: str) -> Importances:
        return label_free_importances(
            model,
            request.forget if part == "forget" else request.retain,
            request.numerics,
            request.meter,
            batch_size=self.batch_size,
            order=request.generator("importances", part) if self.augment else None,
        )


def percentile_of(fraction: float) -> float:
    """Return 100 - ln(1 + 100 ``fraction``), at least 0: the larger the fraction, the more is dampened."""
    return max(0.0, 100.0 - math.log1p(100.0 * fraction))


def sorted_ratios(forget: Importances, retain: Importances) -> Tensor:
    """Return I_f / I_r of all parameters, float32, ascending, without NaN and inf.

    Raises:
        InvalidInput: nothing is left.
    """
    ratios = torch.cat([(forget[name] / retain[name]).flatten() for name in forget])
    finite = ratios[torch.isfinite(ratios)]
    if not len(finite):
        raise InvalidInput(
            "no parameter matters to the retained examples: every gradient of the logits' norm on them is zero; "
            "check the model's inputs and outputs"
        )
    return finite.sort().values


def percentile(ascending: Tensor, percent: float) -> float:
    """Return the ``percent``-th percentile of sorted values, interpolated linearly between neighbours.

    Sorting once serves all tries, and ``torch.quantile`` refuses more than 16 million values.
    """
    place = percent / 100 * (len(ascending) - 1)
    low = min(int(place), len(ascending) - 1)
    high = min(low + 1, len(ascending) - 1)
    below, above = float(ascending[low]), float(ascending[high])
    return below + (place - low) * (above - below)
