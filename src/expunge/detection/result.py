"""What a detector found, and what several found together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from expunge.errors import InvalidInput

NO_LABEL = -1
"""Stands for "no label is suggested"."""


@dataclass(frozen=True)
class Detection:
    """The examples a detector suspects.

    Args:
        detector: its name.
        scores: float64 (N,), on the CPU: higher is more suspicious. The unit is the detector's.
        flagged: bool (N,), the examples to be forgotten.
        per_class: number of flagged examples of each given label.
        suggested: int64 (N,), the label that a flagged example should have; -1 where none is suggested.
        evidence: name -> one value per class (NaN where it is not defined), what the decision rests on.
        notes: what is to be known of the result, for the user.
    """

    detector: str
    scores: Tensor
    flagged: Tensor
    per_class: tuple[int, ...]
    suggested: Tensor
    evidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        detector: str,
        scores: Tensor,
        flagged: Tensor,
        labels: Tensor,
        n_classes: int,
        *,
        suggested: Tensor | None = None,
        evidence: Mapping[str, tuple[float, ...]] | None = None,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Return the detection of examples with the stored ``labels`` int64 (N,); flagged ones are counted."""
        flagged = flagged.cpu()
        if suggested is None:
            suggested = torch.full((len(flagged),), NO_LABEL)
        counts = torch.bincount(labels.cpu()[flagged], minlength=n_classes)
        return cls(
            detector,
            scores.double().cpu(),
            flagged,
            tuple(counts.tolist()),
            suggested.cpu(),
            evidence or {},
            notes,
        )

    def spread(self, among: Tensor, *notes: str) -> Self:
        """Return the detection of N examples, of which those ``among``, bool (N,), were looked at."""
        scores = torch.zeros(len(among), dtype=torch.float64)
        flagged, suggested = torch.zeros_like(among), torch.full((len(among),), NO_LABEL)
        scores[among], flagged[among], suggested[among] = self.scores, self.flagged, self.suggested
        return replace(self, scores=scores, flagged=flagged, suggested=suggested, notes=(*self.notes, *notes))

    def __len__(self) -> int:
        return len(self.flagged)

    @property
    def positions(self) -> Tensor:
        """int64 (F,), sorted: the flagged examples."""
        return self.flagged.nonzero().flatten()


def combine(found: Sequence[Detection], labels: Tensor) -> Detection:
    """Return the union of several detections of the same examples.

    score_i = max over detectors d of  |{j : s_dj < s_di}| / N,

    the share of examples that are less suspicious, so that scores of different units can be compared. A
    label is suggested by the first detector that suggests one.

    Args:
        found: at least one detection.
        labels: int64 (N,), the given labels.

    Raises:
        InvalidInput: no detection, or detections of different numbers of examples.
    """
    if not found or {len(part) for part in found} != {len(labels)}:
        raise InvalidInput(
            f"detections of the {len(labels)} examples are expected, got "
            f"{[(part.detector, len(part)) for part in found]} (detector, examples)"
        )
    suggested = found[0].suggested
    for part in found[1:]:
        suggested = torch.where(suggested == NO_LABEL, part.suggested, suggested)
    return Detection.of(
        "+".join(part.detector for part in found),
        torch.stack([_share_below(part.scores) for part in found]).amax(0),
        torch.stack([part.flagged for part in found]).any(0),
        labels,
        len(found[0].per_class),
        suggested=suggested,
    )


def _share_below(scores: Tensor) -> Tensor:
    below = torch.searchsorted(scores.sort().values, scores.contiguous(), side="left")
    return below.double() / len(scores)
