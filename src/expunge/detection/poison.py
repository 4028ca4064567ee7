"""Poisoned examples by the traces they leave in a trained network's features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expunge.detection.result import Detection
from expunge.errors import InvalidInput
from expunge.seeding import derive_seed

_FEWEST_MEMBERS = 10
_FEWEST_CLASSES = 5
_SILHOUETTE_SAMPLE = 5000
"""Examples of a class at most whose silhouettes are averaged: the cost is quadratic."""


def spectral_signatures(
    features: Tensor, labels: Tensor, n_classes: int, *, share: float = 0.05
) -> Detection:
    """Flag the examples that stand out most along the first principal direction of their class.

    Within each class y, with M the rows R(x_i) - mean of R over the class, v the top right singular vector of M:

    tau_i = ((R(x_i) - mean) . v)^2;  the 1.5 eps n_y examples with the largest tau_i are flagged.

    Symbols: R -> ``features``, eps -> ``share``.

    There is no decision whether a class is poisoned: 1.5 eps of every class is flagged. The score is tau.

    Args:
        features: float (N, D), what enters the head of the trained model.
        labels: int64 (N,), the given labels.
        n_classes: number of classes.
        share: upper bound on the share of poisoned examples in a class, in (0, 0.5).

    Raises:
        InvalidInput: a share outside its range, features that are not finite or not one row per label.

    Source: Tran, Li, Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, algorithm 1.

    Departures: the paper knows eps, and retrains without the flagged examples; here eps is a setting.
    """
    if not 0 < share < 0.5:
        raise InvalidInput(f"the share of poisoned examples in a class must lie in (0, 0.5), got {share}")
    check_features(features, labels)
    labels = labels.cpu()
    scores = torch.zeros(len(labels), dtype=torch.float64)
    flagged = torch.zeros(len(labels), dtype=torch.bool)
    explained = [math.nan] * n_classes
    for label in range(n_classes):
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            continue
        tau, explained[label] = _outlyingness(features[members.to(features.device)].double().cpu())
        scores[members] = tau
        most = tau.topk(int(1.5 * share * len(members))).indices
        flagged[members[most]] = True
    return Detection.of(
        "spectral",
        scores,
        flagged,
        labels,
        n_classes,
        evidence={"first_direction": tuple(explained)},
        notes=(
            f"takes 1.5 x {share:g} of every class, whether it is poisoned or not: look through what it lists",
        ),
    )


def check_features(features: Tensor, labels: Tensor) -> None:
    """Raise :class:`InvalidInput` unless there is one row of finite features for each label."""
    if features.ndim != 2 or len(features) != len(labels):
        raise InvalidInput(
            f"features of shape ({len(labels)}, D) are expected, one row for each label, got {tuple(features.shape)}"
        )
    finite = features.isfinite().all(1)
    if not bool(finite.all()):
        raise InvalidInput(
            f"the features of {int((~finite).sum())} examples hold NaN or inf (the first is example "
            f"{int((~finite).nonzero()[0])}); check the checkpoint and the inputs"
        )


def _outlyingness(features: Tensor) -> tuple[Tensor, float]:
    """Squared projections (n,) on the first principal direction, and its share of the variance."""
    centred = features - features.mean(0)
    if len(centred) <= centred.shape[1]:
        # M v = sigma u, and u comes from the smaller of the two Gram matrices.
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        tau = values[-1].clamp_min(0) * vectors[:, -1].square()
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        tau = (centred @ vectors[:, -1]).square()
    total = float(values.clamp_min(0).sum())
    return tau, float(values[-1]) / total if total > 0 else math.nan


def activation_clustering(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    components: int = 10,
    silhouette: float = 0.10,
    size: float = 0.40,
    anomaly: float = 3.0,
    seed: int = 0,
) -> Detection:
    """Split the features of each class in two, and flag the smaller part where it stands apart.

    Per class y: project on the first ``components`` principal components, then 2-means. The class is
    poisoned if all of these hold:

    - s_y = mean over i of (b_i - a_i) / max(a_i, b_i) >= ``silhouette``, with a_i the mean distance to the own
      cluster and b_i to the other;
    - n_small / (n_small + n_large) <= ``size``;
    - (s_y - median s) / (1.4826 median |s - median s|) >= ``anomaly``, over the classes that have a value, if
      these are five at least.

    The score of an example is, in a poisoned class, max(0, (d_large - d_small) / (d_large + d_small)), in
    [0, 1], with its distances d to the two centres; 0 in all others.

    Args:
        features: float (N, D), what enters the head of the trained model.
        labels: int64 (N,), the given labels.
        n_classes: number of classes.
        components: dimensions the features are reduced to; fewer where their rank is lower.
        silhouette: threshold in [-1, 1].
        size: largest share of a class that may be poisoned, in (0, 0.5].
        anomaly: robust standard deviations above the other classes, at least 0.
        seed: of the clusters.

    Raises:
        InvalidInput: a setting outside its range, features that are not finite or not one row per label.

    Source: Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava, "Detecting Backdoor Attacks
    on Deep Neural Networks by Activation Clustering", arXiv 1811.03728: 2-means, silhouette and relative size.
    The silhouette's threshold is that of the authors' implementation, and so are the principal components.

    Departures: the paper projects on independent components, whose scaling gives noise the weight of a
    trigger; it discusses silhouette and size one by one, and leaves the size to the user (0.35 in that
    implementation). The third condition is ours: how far clean classes fall apart differs between networks; its
    threshold was chosen on small networks on digits. A clean class of two unlike kinds can still be flagged.
    A class of fewer than 10 examples is left alone.
    """
    if components < 1 or not -1 <= silhouette <= 1 or not 0 < size <= 0.5 or not anomaly >= 0:
        raise InvalidInput(
            "activation clustering needs components of at least 1, a silhouette in [-1, 1], a size in (0, 0.5] and "
            f"an anomaly of at least 0, got {components}, {silhouette}, {size} and {anomaly}"
        )
    check_features(features, labels)
    labels = labels.cpu()
    split: dict[int, _Split] = {}
    for label in range(n_classes):
        members = (labels == label).nonzero().flatten()
        state = derive_seed(seed, "activation clustering", label) % 2**32
        found = _in_two(members, features[members.to(features.device)].double().cpu(), components, state)
        if found is not None:
            split[label] = found
    index = _anomaly_index({label: part.silhouette for label, part in split.items()})
    scores = torch.zeros(len(labels), dtype=torch.float64)
    flagged = torch.zeros(len(labels), dtype=torch.bool)
    for label, part in split.items():
        stands_out = index.get(label, math.inf) >= anomaly
        if stands_out and part.silhouette >= silhouette and part.share <= size:
            scores[part.members] = part.nearness.clamp_min(0)
            flagged[part.members] = part.nearness > 0
    evidence = {
        "silhouette": {label: part.silhouette for label, part in split.items()},
        "smaller_part": {label: part.share for label, part in split.items()},
        "anomaly": index,
    }
    return Detection.of(
        "activation",
        scores,
        flagged,
        labels,
        n_classes,
        evidence={
            name: tuple(values.get(label, math.nan) for label in range(n_classes))
            for name, values in evidence.items()
        },
    )


@dataclass(frozen=True)
class _Split:
    """A class in two parts: its members, how near each is to the smaller one, in [-1, 1], and the evidence."""

    members: Tensor
    nearness: Tensor
    silhouette: float
    share: float


def _in_two(members: Tensor, features: Tensor, components: int, state: int) -> _Split | None:
    from sklearn.cluster import KMeans  # sklearn takes seconds to import
    from sklearn.metrics import silhouette_score

    if len(members) < _FEWEST_MEMBERS:
        return None
    centred = features - features.mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = min(components, int((values > values[0] * 1e-9).sum()))
    if kept == 0 or float(values[0]) == 0:
        return None
    reduced = (left[:, :kept] * values[:kept]).numpy()
    means = KMeans(2, n_init=10, random_state=state).fit(reduced)
    counts = np.bincount(means.labels_, minlength=2)
    few = None if len(reduced) <= _SILHOUETTE_SAMPLE else _SILHOUETTE_SAMPLE
    width = float(silhouette_score(reduced, means.labels_, sample_size=few, random_state=state))
    small = int(counts.argmin())
    distances = torch.from_numpy(means.transform(reduced))
    near, far = distances[:, small], distances[:, 1 - small]
    return _Split(members, (far - near) / (far + near), width, float(counts[small] / len(reduced)))


def _anomaly_index(values: dict[int, float]) -> dict[int, float]:
    """Robust standard deviations above the median; empty where there are too few values to say."""
    if len(values) < _FEWEST_CLASSES:
        return {}
    found = np.array(list(values.values()))
    deviation = found - np.median(found)
    # 1.4826 makes it the standard deviation of normal values; equal values have none.
    scale = max(1.4826 * float(np.median(np.abs(deviation))), float(np.finfo(float).eps))
    return dict(zip(values, (deviation / scale).tolist(), strict=True))
