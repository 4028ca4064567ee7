"""When a difference counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The numbers behind the verdict. A margin is what is tolerated beyond the retrain-against-retrain floor.

    Where the examples are too few to resolve a margin, the sampling error takes its place, see
    :func:`allowed`: ten images do not show a difference of two points.

    Args:
        utility: margin on test accuracy; retrainings of one recipe differ by about one point on common
            benchmarks, and twice that is what users notice.
        class_utility: margin on the test accuracy of the class that lost most; one class is a small part of the
            test set, and the largest of many drops is large by selection.
        forget: margin on the accuracy on the forget set, which is small, and answered differently by models that are
            alike elsewhere.
        attack: margin on the AUC of an attack; 0.05 is an advantage of a tenth of a coin toss.
        probe: margin on the accuracy of a probe.
        information: margin on the information difference index, whose scale is 1; the estimate varies by a few
            tenths on some hundred examples.
        damage: how many times the tolerated loss makes "damaged utility"; a smaller one is "lost some utility".
        by_heart: loss of accuracy on the retain set that makes "damaged utility" where there are no test examples:
            given labels that are no longer known by heart, wrong ones among them, look like a loss too.
        healed: share of the wrong labels that the reference answers by the true one, below which the unlearned
            model counts as partly healed; without a reference the share of all of them.
        left: share of the way from reference to original that makes "as before"; half way is the boundary, since
            below it the model is nearer to the reference.
        relearn: share of the retrained model's relearning steps below which relearning is fast; the original's
            share is 0, and steps are few whole numbers.
        level: chance, one-sided, that a sampling error alone passes for a difference.
    """

    utility: float = 0.02
    class_utility: float = 0.1
    forget: float = 0.05
    attack: float = 0.05
    probe: float = 0.05
    information: float = 0.3
    damage: float = 2.0
    by_heart: float = 0.2
    healed: float = 0.5
    left: float = 0.5
    relearn: float = 0.67
    level: float = 0.05


THRESHOLDS = Thresholds()
"""The same for every audit, so that verdicts can be compared."""


def allowed(margin: float, floor: float | None, error: float = 0.0) -> float:
    """Return the largest difference that is no finding: floor + max(margin, error)."""
    return (floor or 0.0) + max(margin, error)


def sampling_error(share: float, count: int, level: float = THRESHOLDS.level) -> float:
    """Return z_{1 - level} sqrt(2 p (1 - p) / n): what two accuracies on n examples differ by from sampling.

    p = (n share + 1) / (n + 2), so that a share of 0 or 1 has an error too. The two are taken as independent;
    those of two models on the same examples differ by less, which errs on the side of no finding.

    Args:
        share: accuracy, in [0, 1].
        count: n, examples that it was taken on.
        level: one-sided, in (0, 1).
    """
    p = (share * count + 1) / (count + 2)
    return NormalDist().inv_cdf(1 - level) * math.sqrt(2 * p * (1 - p) / max(1, count))
