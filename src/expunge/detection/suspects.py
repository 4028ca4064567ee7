"""All that several detectors say of the same training set, as one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from expunge.detection.relearned import Beliefs
from expunge.detection.result import Detection, combine
from expunge.detection.wrong_labels import WrongLabels, wrong_labels

KNOWN, NEIGHBOURS = "known", "neighbours"


@dataclass(frozen=True)
class Suspects:
    """The list.

    Attributes:
        found: what each detector says; ``found[0]`` is that of the labels, where they were looked at.
        together: the union, known rows among them.
        known: bool (N,), the rows that were known before.
        labels: what to think of the labels' part; ``None`` where they were not looked at.
    """

    found: tuple[Detection, ...]
    together: Detection
    known: Tensor
    labels: WrongLabels | None

    @property
    def usable(self) -> bool:
        """Whether it is a list, and not only the rows that would be looked at first."""
        return (
            self.labels is None
            or self.labels.usable
            or any(bool(part.flagged.any()) for part in self.found if part.detector not in ("labels", KNOWN))
        )

    @property
    def worst_first(self) -> Tensor:
        """int64 (F,): the rows of the list by falling score."""
        rows = self.together.positions
        return rows[self.together.scores[rows].argsort(descending=True, stable=True)]

    @property
    def detectors(self) -> list[str]:
        """Names of those that flag a row, joined by "+", for each row."""
        flags = [(part.detector, part.flagged.tolist()) for part in self.found]
        return ["+".join(name for name, flag in flags if flag[row]) for row in range(len(self.known))]

    @property
    def n_new(self) -> int:
        """Number of rows of the list that were not known before."""
        return int((self.together.flagged & ~self.known).sum())


def suspects(
    labels: Tensor,
    n_classes: int,
    *,
    probabilities: Tensor | None = None,
    searched: Tensor | None = None,
    known: Tensor | None = None,
    beliefs: Beliefs | None = None,
    others: Sequence[Detection] = (),
    notes: Sequence[str] = (),
) -> Suspects:
    """Unite wrong labels, neighbours of known rows, and what ``others`` found.

    Rows that share features with known ones are a matter of their own (a trigger, two exchanged classes): neither they
    nor those known ones say where the ranking of wrong labels is to be cut.

    Args:
        labels: int64 (N,), the given labels.
        n_classes: number of classes.
        probabilities: float (N, C), of a network that has not memorised the labels; without, labels are not looked at.
        searched: bool (N,), the rows that the probabilities are about; by default all.
        known: bool (N,), rows known to be bad.
        beliefs: of a network that relearned, in place of ``probabilities``.
        others: further detections.
        notes: on the probabilities, for the user.

    Raises:
        InvalidInput: probabilities that are none, one class only, or nothing to go by.
    """
    labels = labels.cpu()
    none = torch.zeros(len(labels), dtype=torch.bool)
    known = none if known is None else known.cpu()
    found: list[Detection] = []
    judged = None
    apart = none
    if beliefs is not None:
        probabilities = beliefs.probabilities
        apart = beliefs.neighbours | beliefs.neighboured
        notes = (*notes, *beliefs.notes)
    if probabilities is not None:
        kept = ~apart & (~none if searched is None else searched)
        judged = wrong_labels(labels[kept], probabilities[kept], known[kept])
        part = judged.found if bool(kept.all()) else judged.found.spread(kept)
        judged = replace(judged, found=replace(part, notes=(*part.notes, *notes)))
        found.append(judged.found)
    if beliefs is not None and bool(beliefs.neighbours.any()):
        found.append(_neighbours(labels, n_classes, beliefs))
    found += others
    scores = found[0].scores if len(found) == 1 else combine(found, labels).scores
    if bool(known.any()):
        found.append(Detection.of(KNOWN, known.double(), known, labels, n_classes))
    together = replace(combine(found, labels), scores=scores)
    return Suspects(tuple(found), together, known, judged)


def _neighbours(labels: Tensor, n_classes: int, beliefs: Beliefs) -> Detection:
    other = beliefs.probabilities.scatter(1, labels[:, None], -1.0).argmax(1)
    count = int(beliefs.neighbours.sum())
    of = torch.unique(labels[beliefs.neighbours])
    return Detection.of(
        NEIGHBOURS,
        beliefs.neighbours.double(),
        beliefs.neighbours,
        labels,
        n_classes,
        suggested=torch.where(beliefs.neighbours, other, -1),
        notes=(
            f"{count:,} rows of {len(of)} {'class' if len(of) == 1 else 'classes'} carry what the known ones do, and "
            f"the network, left without them, calls them something else; about {round(beliefs.good * count):,} of them "
            "may be good",
        ),
    )
