"""Membership inference by a support vector classifier: the MIA of many published tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import unseen_like_retain
from expunge.metrics.attack_scores import confidence, correctness, entropy, modified_entropy
from expunge.metrics.base import Evaluated, Metric, NotDefined, Scored, Value, value_or_reason
from expunge.seeding import generator

Feature = Callable[[Scored], Tensor]
"""From predictions and labels to float64 (N,) or (N, D)."""


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
    labels = np.concatenate([np.ones(len(groups[0])), np.zeros(len(groups[1]))])
    attacker = SVC(C=3, gamma="auto", kernel="rbf").fit(fitted.numpy(), labels)
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
