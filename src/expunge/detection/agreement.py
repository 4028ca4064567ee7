"""How well a detection agrees with the truth, where it is known."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from expunge.detection.result import NO_LABEL, Detection
from expunge.errors import InvalidInput


@dataclass(frozen=True)
class Agreement:
    """Counts and shares of a detection against the truth.

    Args:
        n_flagged: examples flagged.
        n_bad: examples that are bad.
        n_found: bad examples that were flagged.
        precision: share of the flagged that are bad, in [0, 1]; ``None`` if none was flagged.
        recall: share of the bad that were flagged, in [0, 1]; ``None`` if none is bad.
        suggested_right: share of the suggested labels that are the true ones; ``None`` without true labels or
            without a suggestion.
    """

    n_flagged: int
    n_bad: int
    n_found: int
    precision: float | None
    recall: float | None
    suggested_right: float | None


def agreement(found: Detection, bad: Tensor, true_labels: Tensor | None = None) -> Agreement:
    """Compare ``found`` with the truth.

    precision = |F and B| / |F|,  recall = |F and B| / |B|.

    Symbols: F -> the flagged examples, B -> ``bad``.

    Args:
        found: a detection of N examples.
        bad: bool (N,), the examples that are bad.
        true_labels: int64 (N,), negative where not known; for the suggested labels.

    Raises:
        InvalidInput: a truth about another number of examples.
    """
    for name, truth in (("bad", bad), ("true_labels", true_labels)):
        if truth is not None and truth.shape != found.flagged.shape:
            raise InvalidInput(
                f"{name} must have one entry for each of the {len(found)} examples, got {tuple(truth.shape)}"
            )
    n_flagged, n_bad = int(found.flagged.sum()), int(bad.sum())
    n_found = int((found.flagged & bad.cpu()).sum())
    right = None
    if true_labels is not None:
        asked = (found.suggested != NO_LABEL) & (true_labels.cpu() >= 0)
        if bool(asked.any()):
            right = float((found.suggested == true_labels.cpu())[asked].double().mean())
    return Agreement(
        n_flagged,
        n_bad,
        n_found,
        n_found / n_flagged if n_flagged else None,
        n_found / n_bad if n_bad else None,
        right,
    )
