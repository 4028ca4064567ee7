"""The forgetting quality and final score of the NeurIPS 2023 unlearning competition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.klom import check_populations

DELTA = 1e-5
CAP = 50.0
BIN = 0.5
PEAKY = 0.01
_CHUNK = 4_000_000
"""Numbers in one array of interval rates: 32 MB."""


def epsilons(unlearned: Tensor, retrained: Tensor, *, delta: float = DELTA) -> Tensor:
    """Privacy loss of each example that the best threshold attack shows, in [0, 50]: float64 (E,).

    An attack guesses from phi = log p_y - log sum_{j != y} p_j which population a model belongs to. Over
    the rules

    - single threshold: phi >= t is the population with the larger median;
    - double threshold: a <= phi <= b is the population with the smaller range;

    with every observed value as threshold,

        epsilon = max over rules of max(log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR),

    clipped to [0, 50]. FPR = FNR = 0 counts as 50. A rule with only one of them at 0 is left out, as a sign
    of too few models. Where one population's range is below 1 % of the other's the example counts as 50.

    Args:
        unlearned: float (N, E), phi of model n on forget example x.
        retrained: float (N, E), as many models.
        delta: in [0, 1).

    Raises:
        InvalidInput: populations that differ in size, have fewer than three models or hold NaN.

    Source: Triantafillou et al., arXiv 2406.09073, section 4 and appendix; reference program
    github.com/google-deepmind/unlearning_evaluation, commit ffae0ff.

    Departures: every pair of observed values is a threshold, where the program walks a grid of step 0.01
    (windows within 2 nats of the smaller range), so a value here is never below the program's but for the
    grid. Two populations that are one and the same constant count as 0.
    """
    check_populations(unlearned, retrained)
    if len(unlearned) != len(retrained) or len(unlearned) < 3:
        raise InvalidInput(
            "as many unlearned as retrained models are expected, at least 3 of each (the competition took 512), "
            f"got {len(unlearned)} and {len(retrained)}"
        )
    if not 0 <= delta < 1:
        raise InvalidInput(f"delta must lie in [0, 1), got {delta:g}")
    chunk = max(1, _CHUNK // (2 * len(unlearned)) ** 2)
    return torch.cat(
        [
            _epsilons(
                unlearned[:, start : start + chunk].double().T.contiguous(),
                retrained[:, start : start + chunk].double().T.contiguous(),
                delta,
            )
            for start in range(0, unlearned.shape[1], chunk)
        ]
    )


def forgetting_quality(unlearned: Tensor, retrained: Tensor, *, delta: float = DELTA) -> float:
    """F, the mean over the forget set of 2^-bin(epsilon), in [0, 1]; higher is better.

    Bins of epsilon have width 1/2, from 0 to ceil(log(N - 1)), beyond which an example scores 0. F of two
    samples of one distribution lies below 1 and depends on N. Arguments and errors: :func:`epsilons`.
    """
    found = epsilons(unlearned, retrained, delta=delta)
    bins = 2 * math.ceil(math.log(len(unlearned) - 1))
    which = (found / BIN).floor()
    return float(torch.where(which < bins, 2.0**-which, 0.0).mean())


def final_score(
    quality: float, *, retain: float, retain_of_retrained: float, test: float, test_of_retrained: float
) -> float:
    """F RA(theta_u) / RA(theta_r) TA(theta_u) / TA(theta_r): forgetting times the utility kept; higher is better.

    Args:
        quality: F, from :func:`forgetting_quality`.
        retain: RA(theta_u), accuracy on the retain set, in [0, 1], mean over the unlearned models.
        retain_of_retrained: RA(theta_r).
        test: TA(theta_u), accuracy on the test set.
        test_of_retrained: TA(theta_r).

    Raises:
        InvalidInput: a value outside [0, 1], or a retrained accuracy of 0.
    """
    given = (quality, retain, retain_of_retrained, test, test_of_retrained)
    if not all(0 <= value <= 1 for value in given) or not (retain_of_retrained and test_of_retrained):
        raise InvalidInput(
            "quality and accuracies must lie in [0, 1], those of the retrained models above 0, got "
            f"{', '.join(f'{value:g}' for value in given)}"
        )
    return quality * (retain / retain_of_retrained) * (test / test_of_retrained)


def _epsilons(unlearned: Tensor, retrained: Tensor, delta: float) -> Tensor:
    """Epsilon of scores (E, N) and (E, N)."""
    ranges = [scores.amax(1) - scores.amin(1) for scores in (unlearned, retrained)]
    smaller, larger = torch.minimum(*ranges), torch.maximum(*ranges)
    # torch.median takes the lower of two middle values, the competition their mean.
    retrained_is_high = retrained.quantile(0.5, dim=1) > unlearned.quantile(0.5, dim=1)
    retrained_is_narrow = ranges[1] < ranges[0]
    swap = (retrained_is_high != retrained_is_narrow)[:, None]
    high, low = _chosen(retrained_is_high, retrained, unlearned)
    best = torch.maximum(
        _single(high.sort(1).values, low.sort(1).values, delta),
        _double(
            torch.where(swap, low, high).sort(1).values, torch.where(swap, high, low).sort(1).values, delta
        ),
    )
    best = torch.where(smaller < PEAKY * larger, CAP, best.clamp(0.0, CAP))
    constant = torch.where(unlearned[:, 0] == retrained[:, 0], 0.0, CAP)
    return torch.where(larger == 0, constant, best)


def _chosen(which: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(which[:, None], first, second), torch.where(which[:, None], second, first)


def _single(positive: Tensor, negative: Tensor, delta: float) -> Tensor:
    """Best epsilon of "phi >= t is positive"; both (E, N), sorted."""
    count = positive.shape[1]
    thresholds = torch.cat([positive, negative], 1)
    false_negatives = torch.searchsorted(positive, thresholds)
    false_positives = count - torch.searchsorted(negative, thresholds)
    return _bound(false_positives, false_negatives, count, delta).amax(1)


def _double(narrow: Tensor, wide: Tensor, delta: float) -> Tensor:
    """Best epsilon of "a <= phi <= b is the narrow one"; both (E, N), sorted."""
    count = narrow.shape[1]
    thresholds = torch.cat([narrow, wide], 1).sort(1).values

    def within(scores: Tensor) -> Tensor:
        below = torch.searchsorted(scores, thresholds)
        up_to = torch.searchsorted(scores, thresholds, right=True)
        # b below a is an empty interval: no rule
        return (up_to[:, None, :] - below[:, :, None]).clamp(min=0)

    return _bound(within(wide), count - within(narrow), count, delta).flatten(1).amax(1)


def _bound(false_positives: Tensor, false_negatives: Tensor, count: int, delta: float) -> Tensor:
    """The two-sided bound of each rule; inf where it is perfect, -inf where it is left out."""
    fpr, fnr = false_positives.double() / count, false_negatives.double() / count

    def one(a: Tensor, b: Tensor) -> Tensor:
        # 1 - delta - a is below 0 where a is 1: no bound
        return torch.where(1 - delta - a > 0, (1 - delta - a).clamp(min=1e-300).log() - b.log(), -math.inf)

    bound = torch.maximum(one(fpr, fnr), one(fnr, fpr))
    bound = torch.where(fpr * fnr == 0, -math.inf, bound)
    return torch.where(fpr + fnr == 0, math.inf, bound)
