"""Membership inference by a cross-validated logistic regression on the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import unseen_like_forget
from expunge.metrics.attack_scores import loss
from expunge.metrics.base import Evaluated, Metric
from expunge.seeding import derive_seed, generator

_FEWEST = 10


def logistic_attack(members: Tensor, others: Tensor, seed: int = 0, splits: int = 10) -> float:
    """Return the mean accuracy, in [0, 1], of a logistic regression on unseen examples.

    Ten stratified shuffle splits: fitted on 90 % of the examples, tested on 10 %.

    Args:
        members: float (N,), one feature of examples that were trained on.
        others: float (N,), of as many that were not.
        seed: of the splits.
        splits: how many.

    Raises:
        InvalidInput: groups of different size, fewer than ten a side, or a feature that is not finite.
    """
    if members.shape != others.shape or members.ndim != 1 or len(members) < _FEWEST:
        raise InvalidInput(
            f"the attack needs two groups of one size, at least {_FEWEST} each, got {tuple(members.shape)} members "
            f"and {tuple(others.shape)} others"
        )
    features = torch.cat([members, others]).cpu().double().numpy()[:, None]
    if not np.isfinite(features).all():
        raise InvalidInput("the feature of the attack must be finite, got NaN or inf; the model has diverged")
    labels = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    folds = StratifiedShuffleSplit(n_splits=splits, test_size=0.1, random_state=seed)
    return float(cross_val_score(LogisticRegression(), features, labels, cv=folds, scoring="accuracy").mean())


def matched_by_class(first: Tensor, second: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw positions from two groups so that every class is equally frequent in both.

    From each class the smaller of its two counts is drawn without replacement from each group; a class that
    one of them lacks is left out.

    Args:
        first: int64 (N,), labels of one group.
        second: int64 (M,), labels of the other.
        source: CPU generator of the draws.

    Returns:
        int64 (K,) positions in ``first`` and int64 (K,) in ``second``, class by class.
    """
    chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in torch.unique(first.cpu()).tolist():
        groups = [(labels.cpu() == label).nonzero().flatten() for labels in (first, second)]
        count = min(map(len, groups))
        for group, kept in zip(groups, chosen, strict=True):
            kept.append(group[torch.randperm(len(group), generator=source)[:count]])
    return torch.cat(chosen[0]), torch.cat(chosen[1])


@dataclass(frozen=True, kw_only=True)
class LogisticAttack(Metric):
    """Accuracy of a logistic regression on the loss in telling D_f from test images, in [0, 1].

    Both sides are drawn so that they are of one size and every class is equally frequent in both; where a class or
    sub-class is forgotten the test images are of it. 1/2 means that the loss gives nothing away, and is the
    aim only where the two sides are exchangeable: closer to the retrained model's value is better. Where there is
    nothing to be found the value still varies: with a standard deviation of about 0.08 at 35 a side, 0.05 at
    100 and 0.02 at 500 (measured on noise).

    Args:
        seed: of the draws and of the splits.
    """

    name = "logistic_attack"
    better = "reference"
    source = "starting kit of the NeurIPS 2023 unlearning challenge, arXiv 2406.09073"

    seed: int = 0

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy.

        Raises:
            NotDefined: fewer than ten examples a side, or a logit that is not finite.
        """
        forget, unseen = evaluated.forget, unseen_like_forget(evaluated)
        draws = generator(self.seed, self.name)
        members, others = matched_by_class(forget.labels, unseen.labels, draws)
        return logistic_attack(
            loss(*forget).cpu()[members],
            loss(*unseen).cpu()[others],
            derive_seed(self.seed, self.name) % 2**32,
        )
