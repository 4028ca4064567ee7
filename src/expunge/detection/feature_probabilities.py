"""Out-of-sample probabilities without training the network: a classifier on features it already has."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from expunge.detection.folds import stratified_folds
from expunge.errors import InvalidInput
from expunge.training.loop import Progress, silent


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


def feature_probabilities(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> Tensor:
    """Return float64 (N, n_classes): for each fold, a logistic regression fitted on the other folds.

    Features are scaled to mean 0 and standard deviation 1; L2 penalty with C = 1. A class without examples
    has probability 0.

    The features are those of a network that saw every example: where it memorised a wrong label, the
    features tell that label, and the error goes unseen.

    Args:
        features: float (N, D).
        labels: int64 (N,), the stored labels.
        n_classes: number of classes.
        folds: at least 2.
        seed: of the folds.
        progress: called with the share of the work that is done.

    Raises:
        InvalidInput: features that are not finite or not one row per label, too few examples of a class, or
            one class only.
    """
    check_features(features, labels)
    fold = stratified_folds(labels, folds, seed)
    known, answers = features.double().cpu().numpy(), labels.cpu().numpy()
    found = torch.zeros(len(labels), n_classes, dtype=torch.float64)
    for number in range(folds):
        held_out = (fold == number).numpy()
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        classifier.fit(known[~held_out], answers[~held_out])
        rows = torch.zeros(int(held_out.sum()), n_classes, dtype=torch.float64)
        rows[:, torch.from_numpy(classifier.classes_)] = torch.from_numpy(
            classifier.predict_proba(known[held_out])
        )
        found[torch.from_numpy(held_out)] = rows
        progress((number + 1) / folds)
    return found
