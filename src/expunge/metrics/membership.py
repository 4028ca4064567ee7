"""Membership inference: is the forget set still told apart as training data?"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from expunge.metrics.attack_scores import entropy
from expunge.metrics.base import Evaluated, Metric


def share_called_member(members: Tensor, others: Tensor, targets: Tensor) -> float:
    """Share of ``targets`` that a logistic regression calls members, in [0, 1].

    It is fitted on one feature, ``members`` against ``others``, with balanced class weights; there is no
    held-out part.

    Args:
        members: float (M,), the feature of examples that were trained on.
        others: float (O,), of examples that were not.
        targets: float (T,), of the examples in question.
    """
    features = torch.cat([members, others]).cpu().double().numpy()[:, None]
    labels = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    attacker = LogisticRegression(class_weight="balanced").fit(features, labels)
    return float(attacker.predict(targets.cpu().double().numpy()[:, None]).mean())


class EntropyAttack(Metric):
    """Share of the forget set that an attack on the prediction entropy calls members, in [0, 1].

    A logistic regression on H = -sum_c p_c log p_c tells the retain set from the test set; the value is the
    share of D_f it takes for training data. Closer to the retrained model's value is better: neither 0 nor
    1/2 is the aim, and unlike a population attack it says nothing about single examples.

    Source: the attack of Chundawat et al. (Bad Teacher), Foster et al. (SSD) and He et al. (NatMU).
    """

    name = "entropy_attack"
    better = "reference"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the share; not defined for tasks without a forget and a retain set to evaluate."""
        logits = [evaluated.logits(name) for name in ("retain", "test", "forget")]
        members, others, targets = map(entropy, logits)
        return share_called_member(members, others, targets)
