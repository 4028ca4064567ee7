"""Wrong labels by confident learning, as cleanlab does it."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from expunge.detection.result import NO_LABEL, Detection
from expunge.errors import InvalidInput

Filter = Literal[
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
]

_WEAK = 0.7
"""Out-of-sample accuracy below which the user is warned."""


def check_cleanlab() -> None:
    """Raise :class:`InvalidInput`, which says how to install it, if cleanlab cannot be imported."""
    _cleanlab("filter")


def label_errors(
    labels: Tensor, probabilities: Tensor, *, filter_by: Filter = "prune_by_noise_rate"
) -> Detection:
    """Flag the examples whose stored label contradicts their out-of-sample probabilities.

    An example counts as class j if p_ij >= t_j = mean of p_kj over {k : y~_k = j}; these counts, by stored
    and by counted class, estimate the joint Q of stored and true labels. "prune_by_noise_rate" flags, for every
    pair a != b, the N Q_ab examples of stored label a with the largest p_b - p_a. The score is
    1 - p_{y~}, in [0, 1]; the suggested label the largest p.

    Symbols: y~ -> ``labels``, p -> ``probabilities``.

    Args:
        labels: int64 (N,), the stored labels.
        probabilities: float (N, n_classes), from models that were not trained on the example, rows of sum 1.
        filter_by: the rule of ``cleanlab.filter.find_label_issues``.

    Raises:
        InvalidInput: cleanlab is not installed; probabilities of another shape, not finite, negative or of
            another sum; one class only.

    Source: Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021, section 3; computed by cleanlab.
    """
    _check(labels, probabilities)
    given = labels.cpu().numpy()
    predicted = probabilities.double().cpu().numpy()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        flagged = _cleanlab("filter").find_label_issues(given, predicted, filter_by=filter_by, n_jobs=1)
        quality = _cleanlab("rank").get_label_quality_scores(given, predicted)
    best = torch.from_numpy(predicted.argmax(1))
    mask = torch.from_numpy(np.asarray(flagged, dtype=bool))
    notes = [" ".join(str(warning.message).split()) for warning in said]
    accuracy = float((best == labels.cpu()).double().mean())
    note = f"out-of-sample accuracy on the stored labels is {accuracy:.1%}"
    if accuracy < _WEAK:
        note += ": models this weak list many good rows too; train longer, with more data or a better network"
    return Detection.of(
        "labels",
        1 - torch.from_numpy(quality).double(),
        mask,
        labels,
        probabilities.shape[1],
        suggested=torch.where(mask & (best != labels.cpu()), best, NO_LABEL),
        notes=(note, *dict.fromkeys(notes)),
    )


def _check(labels: Tensor, probabilities: Tensor) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise InvalidInput(
            f"probabilities of shape ({len(labels)}, n_classes) are expected, got {tuple(probabilities.shape)}"
        )
    if not bool(probabilities.isfinite().all()):
        row = int((~probabilities.isfinite()).any(1).nonzero()[0])
        raise InvalidInput(f"the probabilities of example {row} are not finite; the model has diverged")
    sums = probabilities.double().sum(1)
    if bool((probabilities < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise InvalidInput(
            "rows of probabilities must be at least 0 and sum to 1; pass them through a softmax"
        )
    if len(torch.unique(labels)) < 2:
        raise InvalidInput("all labels are of one class; label errors can be told among two classes at least")


def _cleanlab(module: str) -> Any:
    try:
        return importlib.import_module(f"cleanlab.{module}")
    except ImportError as error:
        raise InvalidInput(
            f'finding label errors needs cleanlab, which cannot be imported ({error}); run: pip install "expunge[find]"'
        ) from error
