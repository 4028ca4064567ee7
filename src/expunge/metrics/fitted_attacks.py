"""Membership inference by a fitted classifier: is the forget set still told apart as training data?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import unseen_like_forget, unseen_like_retain
from expunge.metrics.attack_scores import confidence, correctness, entropy, loss, modified_entropy
from expunge.metrics.base import Evaluated, Metric, NotDefined, Scored, Value, value_or_reason
from expunge.seeding import derive_seed, generator

_FEWEST = 10

Feature = Callable[[Scored], Tensor]
"""From predictions and labels to float64 (N,) or (N, D)."""


def share_called_member(members: Tensor, others: Tensor, targets: Tensor) -> float:
    """Share of ``targets`` that a logistic regression calls members, in [0, 1].

    It is fitted on one feature, ``members`` against ``others``, with balanced class weights; there is no held-out part.
    Arguments are those of :func:`svc_efficacy`, but 1-D.
    """
    from sklearn.linear_model import LogisticRegression  # sklearn takes seconds to import

    features = torch.cat([members, others]).cpu().double().numpy()[:, None]
    attacker = LogisticRegression(class_weight="balanced").fit(features, _memberships(members, others))
    return float(attacker.predict(targets.cpu().double().numpy()[:, None]).mean())


class EntropyAttack(Metric):
    """Share of the forget set that an attack on the prediction entropy calls members, in [0, 1].

    A logistic regression on H = -sum_c p_c log p_c tells the retain set from the test set; the value is the
    share of D_f it takes for training data. Closer to the retrained model's value is better: neither 0 nor
    1/2 is the aim, and unlike a population attack it says nothing about single examples.
    """

    name = "entropy_attack"
    better = "reference"
    source = "the attack of Chundawat et al. (Bad Teacher), Foster et al. (SSD) and He et al. (NatMU)"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share; not defined for tasks without a forget and a retain set to evaluate."""
        logits = [evaluated.logits(name) for name in ("retain", "test", "forget")]
        members, others, targets = map(entropy, logits)
        return share_called_member(members, others, targets)


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
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    if members.shape != others.shape or members.ndim != 1 or len(members) < _FEWEST:
        raise InvalidInput(
            f"the attack needs two groups of one size, at least {_FEWEST} each, got {tuple(members.shape)} members "
            f"and {tuple(others.shape)} others"
        )
    features = torch.cat([members, others]).cpu().double().numpy()[:, None]
    if not np.isfinite(features).all():
        raise InvalidInput("the feature of the attack must be finite, got NaN or inf; the model has diverged")
    labels = _memberships(members, others)
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


def svc_efficacy(members: Tensor, others: Tensor, targets: Tensor) -> float:
    """Return the share of ``targets`` that a support vector classifier calls non-members, in [0, 1].

    The classifier has an RBF kernel, exp(-|a - b|^2 / D), and C = 3. It is fitted to ``members`` against
    ``others``; there is no held-out part. Time and memory grow with the square of their number.

    Args:
        members: float (M,) or (M, D), the features of examples that were trained on.
        others: float (O,) or (O, D), of examples that were not.
        targets: float (T,) or (T, D), of the examples in question.

    Raises:
        InvalidInput: an empty group, a feature that is not finite, or one value for members and others alike.
    """
    from sklearn.svm import SVC

    sizes = [len(part) for part in (members, others, targets)]
    if 0 in sizes:
        raise InvalidInput(
            "the attack needs members, non-members and targets, got " + ", ".join(map(str, sizes))
        )
    groups = [part.detach().cpu().double().reshape(len(part), -1) for part in (members, others, targets)]
    if not all(bool(group.isfinite().all()) for group in groups):
        raise InvalidInput(
            "the features of the attack must be finite, got NaN or inf; the model has diverged"
        )
    fitted = torch.cat(groups[:2])
    if bool((fitted == fitted[0]).all()):
        raise InvalidInput(
            "every member and every non-member has the same feature, so that no attack can be fitted; use "
            "another feature"
        )
    attacker = SVC(C=3, gamma="auto", kernel="rbf").fit(fitted.numpy(), _memberships(members, others))
    return float(1 - attacker.predict(groups[2].numpy()).mean())


@dataclass(frozen=True, kw_only=True)
class SVCEfficacy(Metric):
    """Share of D_f that an attack fitted on retain and test images calls non-members, in [0, 1].

    A support vector classifier tells members, drawn from D_r, from as many of D_t by one feature. D_t leaves out the
    test images of a forgotten class or sub-class. The value is that of the confidence p_y, which tables call "MIA"
    or "MIA-Efficacy". Higher means more forgotten, but too much of it is over-forgetting: closer to the
    retrained model's value is better, not closer to 1.

    Args:
        most: members and non-members each that the classifier is fitted to at most; its cost is quadratic.
        seed: of the choice of members and non-members; the same for every model of a problem.
        legacy: for the modified entropy alone, compute it as many published programs do; see
            :func:`expunge.metrics.attack_scores.modified_entropy`.

    Two readings to be careful with: where a class is forgotten the probability vector alone gives its images away as
    unlike every member, remembered or not; and modified entropies far above all that were fitted lie outside the
    kernel's reach, where the intercept decides.

    Departure: published programs fit to the whole of D_t.
    """

    name = "svc_efficacy"
    better = "reference"
    source = "Jia et al., NeurIPS 2023, arXiv 2304.04934; Fan et al., ICLR 2024, arXiv 2310.12508"

    most: int = 2000
    seed: int = 0
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InvalidInput(f"most must be at least 1 example a side, got {self.most}")

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the efficacy of the confidence attack; not defined where a logit is not finite."""
        return self.of(evaluated, "confidence")

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """The value of each feature: the confidence's under the metric's own name.

        Names of the others: that with "_correctness", "_entropy", "_modified_entropy" (or, as published,
        "_modified_entropy_legacy") and "_probability" (the vector p).
        """
        found: dict[str, Value | NotDefined] = {self.name: Value(self(evaluated))}
        for feature in self._features:
            if feature == "confidence":
                continue
            published = "_legacy" if self.legacy and feature == "modified_entropy" else ""
            name = f"{self.name}_{feature}{published}"
            found[name] = value_or_reason(partial(self.of, evaluated, feature))
        return found

    def of(self, evaluated: Evaluated, feature: str) -> float:
        """Return the efficacy of one feature.

        Args:
            evaluated: the model.
            feature: "confidence", "correctness", "entropy", "modified_entropy" or "probability".

        Raises:
            InvalidInput: no such feature.
            NotDefined: a logit is not finite, or the feature is the same everywhere.
        """
        if feature not in self._features:
            raise InvalidInput(f"unknown feature {feature!r}; known: {', '.join(self._features)}")
        measured = self._features[feature]
        retain, unseen = evaluated.retain, unseen_like_retain(evaluated)
        draws = generator(self.seed, self.name)
        count = min(len(retain.labels), len(unseen.labels), self.most)
        members = torch.randperm(len(retain.labels), generator=draws)[:count]
        others = torch.randperm(len(unseen.labels), generator=draws)[:count]
        return svc_efficacy(
            measured(_rows(retain, members)), measured(_rows(unseen, others)), measured(evaluated.forget)
        )

    @property
    def _features(self) -> dict[str, Feature]:
        return {
            "confidence": lambda scored: confidence(*scored),
            "correctness": lambda scored: correctness(*scored),
            "entropy": lambda scored: entropy(scored.logits),
            "modified_entropy": lambda scored: modified_entropy(*scored, legacy=self.legacy),
            "probability": lambda scored: scored.logits.double().softmax(1),
        }


def _rows(scored: Scored, rows: Tensor) -> Scored:
    rows = rows.to(scored.logits.device)
    return Scored(scored.logits[rows], scored.labels[rows])


def _memberships(members: Tensor, others: Tensor) -> np.ndarray:
    return np.concatenate([np.ones(len(members)), np.zeros(len(others))])
