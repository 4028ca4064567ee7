"""Membership attacks on a population: one score, the forget set against images never trained on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import unseen_like_forget
from expunge.metrics.attack_scores import confidence, entropy, loss, modified_entropy
from expunge.metrics.base import Evaluated, Metric, NotDefined, Scored, Value
from expunge.metrics.roc import Roc, bootstrap
from expunge.seeding import generator

LOW_RATES = (0.001, 0.01)
"""False positive rates at which the true positive rate is given."""


@dataclass(frozen=True, kw_only=True)
class PopulationAttack(Metric):
    """One score for each example; members are D_f, given labels, non-members were never trained on.

    The non-members are the test images of the forgotten class or sub-class where there is one, else the whole
    test set. Where the forget set is mislabelled or poisoned, the two differ in more than membership.

    The value is the AUC: 1/2 where the score says nothing, above it where the forget set still looks trained
    on, below it where it looks less familiar than new images. Both sides reveal it, so closer to the
    retrained model's value is better, and 1/2 is the aim only as far as the retrained model attains it.

    Args:
        resamples: of the bootstrap behind the intervals, at least 100.
        seed: of its draws.
    """

    better = "reference"
    source: ClassVar[str] = "Carlini et al., IEEE S&P 2022, arXiv 2112.03570 (low false positive rates)"

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise InvalidInput(f"resamples must be at least 100 for a 95 % interval, got {self.resamples}")

    @staticmethod
    @abstractmethod
    def score(scored: Scored) -> Tensor:
        """Return float64 (N,), higher for what looks more like a member."""

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the AUC; not defined where a logit is not finite."""
        return self.roc(evaluated).auc()

    def roc(self, evaluated: Evaluated) -> Roc:
        """Return the ROC curve of the attack."""
        return Roc(self.score(evaluated.forget), self.score(unseen_like_forget(evaluated)))

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """AUC, and the true positive rates at :data:`LOW_RATES`, with bootstrap intervals.

        Names: the metric's, and that with "_tpr_at_0.001" and "_tpr_at_0.01".
        """
        roc = self.roc(evaluated)
        statistics: dict[str, Callable[[Roc], float]] = {self.name: Roc.auc}
        undefined: dict[str, Value | NotDefined] = {}
        for fpr in LOW_RATES:
            name = f"{self.name}_tpr_at_{fpr:g}"
            try:
                roc.tpr_at(fpr)
            except InvalidInput as error:
                undefined[name] = NotDefined(str(error))
            else:
                statistics[name] = partial(Roc.tpr_at, fpr=fpr)
        ends = bootstrap(
            roc, list(statistics.values()), generator(self.seed, "attack bootstrap"), self.resamples
        )
        values = (
            (name, Value(statistic(roc), low, high))
            for (name, statistic), (low, high) in zip(statistics.items(), ends, strict=True)
        )
        return dict(values) | undefined


class LossAttack(PopulationAttack):
    """Membership attack on the loss: a member is expected to have a low one.

    The value is the AUC of the score log p_y = -loss; see :class:`PopulationAttack` for the two groups and the
    direction.
    """

    name = "loss_attack"
    source = "Yeom et al., CSF 2018, arXiv 1709.01604"

    @staticmethod
    def score(scored: Scored) -> Tensor:
        """Return log p_y."""
        return -loss(*scored)


class ConfidenceAttack(PopulationAttack):
    """Membership attack on the confidence in the label: a member is expected to have a high one.

    The value is the AUC of the score p_y. The order is that of the loss, but for losses below 1e-16, where p_y
    rounds to 1 and examples tie.
    """

    name = "confidence_attack"
    source = "Song and Mittal, USENIX Security 2021, arXiv 2003.10595"

    @staticmethod
    def score(scored: Scored) -> Tensor:
        """Return p_y."""
        return confidence(*scored)


class EntropyAttackAUC(PopulationAttack):
    """Membership attack on the prediction entropy: a member is expected to have a low one.

    The value is the AUC of the score sum_c p_c log p_c. No label is read: a sure wrong answer counts as a member's.
    """

    name = "entropy_attack_auc"
    source = "Salem et al., NDSS 2019, arXiv 1806.01246"

    @staticmethod
    def score(scored: Scored) -> Tensor:
        """Return minus the entropy."""
        return -entropy(scored.logits)


class ModifiedEntropyAttack(PopulationAttack):
    """Membership attack on the modified entropy, which is high for a sure wrong answer.

    The value is the AUC of the score -Mentr(x, y), see :func:`expunge.metrics.attack_scores.modified_entropy`; one
    threshold for all classes.
    """

    name = "modified_entropy_attack"
    source = "Song and Mittal, USENIX Security 2021, arXiv 2003.10595"

    @staticmethod
    def score(scored: Scored) -> Tensor:
        """Return minus the modified entropy."""
        return -modified_entropy(*scored)
