"""Wrong labels by what a network that has not memorised them says, and how many of them are named."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.detection.cut import known_cut, most_errors, stand_out, upper_limit
from expunge.detection.noise_model import confident_count, noise_model
from expunge.detection.result import NO_LABEL, Detection
from expunge.errors import InvalidInput

SHOWN = 50
"""Rows that are shown where no list can be made."""
_WORTHLESS = 0.1
"""Expected share of wrong ones below which no list is made."""
_MOST = 0.5
"""Share of the rows that is no list any more."""
_AT_LEAST = 0.25
"""Share of the number that known rows leave possible: a network that has memorised all labels doubts none."""
_CLEARLY = 1.2
"""Times the merit of 1 - p by which the known rows must speak for the other ranking."""
_TOLD = 0.1
"""Share of the upper number below which the two numbers lie too far apart to tell how many are wrong."""
_FEW = 5
"""Known rows below which they do not set the cut."""


@dataclass(frozen=True)
class WrongLabels:
    """The rows whose label is taken to be wrong, and what to think of that list.

    Attributes:
        found: the detection; its score is 1 - p of the given label, or the probability that it is wrong.
        estimated: number of wrong labels that are expected, known ones apart.
        precision: share of the named rows that is expected to be wrong; ``None`` where known rows do not tell.
        recall: share of the known rows above the cut; ``None`` where they did not set it.
        usable: whether it is a list; where it is none, its rows are the :data:`SHOWN` worst.
    """

    found: Detection
    estimated: float
    precision: float | None
    recall: float | None
    usable: bool


def wrong_labels(labels: Tensor, probabilities: Tensor, known: Tensor | None = None) -> WrongLabels:
    """Name the examples whose given label is least believed, never more than are expected to be wrong.

    The score of i is 1 - p_i[y_i]; n rows are named. Two numbers bracket n, their geometric mean: what
    :func:`~expunge.detection.noise_model.noise_model` expects is too low where the network has learned wrong labels,
    and :func:`~expunge.detection.noise_model.confident_count` too high where it mixes classes up. With a list of five
    rows or more,

    - the score is the probability by the noise model, where the known rows stand clearly higher by it: it is better
      where wrong labels follow a rule (two classes exchanged) and worse where they do not;
    - the upper number is :func:`~expunge.detection.cut.most_errors`; the lower one is at least a quarter of it, and the
      errors expected among the worst over the share of the known ones there;
    - the list ends at :func:`~expunge.detection.cut.known_cut`, if that comes before n;
    - known rows that are not ranked above the others say that the ranking is worth nothing: then the fifty worst are
      named, and the result is not usable. Nor is it where nearly all that is named would be good, or half of the rows
      would be named.

    Without a list, and where the two numbers lie very far apart, the fifty worst are named too: of two classes, for
    one, a network that is unsure and labels that are wrong look alike.

    Symbols: y -> ``labels``, p -> ``probabilities``.

    Args:
        labels: int64 (N,), the given labels.
        probabilities: float (N, C), rows of sum 1, of a network that has not memorised the labels.
        known: bool (N,), examples known to be bad, a random draw of those that are; they are not named again.

    Raises:
        InvalidInput: probabilities of another shape, not finite, negative or of another sum; one class only.
    """
    _check(labels, probabilities)
    labels, p = labels.cpu(), probabilities.double().cpu()
    known = torch.zeros(len(labels), dtype=torch.bool) if known is None else known.cpu()
    ranking = _Ranking(labels, p, known)
    count, expected = int(known.sum()), math.sqrt(ranking.fewest * ranking.most)
    n, why = round(expected), ""
    precision: float | None = None
    recall: float | None = None
    notes: list[str] = []
    if ranking.guided:
        cut = known_cut(ranking.scores, known)
        recall = cut.recall
        notes.append(
            f"{recall:.0%} of the {count} known rows stand among the {cut.count:,} worst of the others; about "
            f"{expected:,.0f} more are expected to be wrong"
        )
        if n < cut.count:
            recall = ranking.known_above(n)
            notes.append(f"on so weak a ranking the list ends at the {n:,} that are expected")
        n = min(cut.count, n)
        precision = min(1.0, recall * expected / n) if n else None
        if not stand_out(ranking.scores, known):
            why = f"the {count} known rows are not ranked above the others, so that this says nothing of rows like them"
        elif precision is not None and precision < _WORTHLESS:
            why = f"only {precision:.0%} of it would be wrong"
    elif n < _TOLD * ranking.most and round(ranking.most) >= _FEW:
        why = (
            f"between {ranking.fewest:,.0f} and {ranking.most:,.0f} rows are wrong, and {_FEW} or more that are known "
            "to be (--known) would tell how many"
        )
    elif count:
        notes.append(f"{count} known rows are too few to set the cut; {_FEW} would do")
    if not why and n > _MOST * len(ranking.order):
        why = f"{n / len(ranking.order):.0%} of the rows would stand in it"
    if why:
        n = min(SHOWN, len(ranking.order))
        notes = [f"no usable list: {why}; here are the {n} worst"]
        precision = recall = None
    return WrongLabels(ranking.named(n, tuple(notes)), expected, precision, recall, not why)


class _Ranking:
    """Examples by how little their given label is believed, and the two numbers that bracket how many are wrong.

    Attributes:
        guided: whether there are known ones enough.
        scores: float64 (N,), higher is more suspicious.
        order: int64, those that are not known, the most suspicious first.
        fewest: the lower number of wrong labels among these.
        most: the upper one.
    """

    def __init__(self, labels: Tensor, p: Tensor, known: Tensor) -> None:
        self._labels, self._p, self._known = labels, p, known
        wrong, count = noise_model(p, labels).wrong, int(known.sum())
        self.guided = count >= _FEW
        self.scores = 1 - p.gather(1, labels[:, None]).squeeze(1)
        if self.guided and known_cut(wrong, known).merit > _CLEARLY * known_cut(self.scores, known).merit:
            self.scores = wrong
        order = self.scores.masked_fill(known, -1.0).argsort(descending=True, stable=True)
        self.order = order[: len(labels) - count]
        self.fewest = float(wrong[~known].sum())
        self.most = max(0.0, confident_count(p, labels) - count)
        if self.guided:
            n = max(1, round(self.fewest))
            # few known ones, none of which happens to lie there, shall not make thousands
            share = float(upper_limit(torch.tensor(self.known_above(n)), count))
            self.most = most_errors(self.scores, known)
            among = float(wrong[self.order[:n]].sum()) / share
            self.fewest = max(self.fewest, among, _AT_LEAST * self.most)

    def known_above(self, n: int) -> float:
        """Return the share of the known ones that stand above the first ``n`` others."""
        if not n:
            return 0.0
        return float((self.scores[self._known] >= self.scores[self.order[n - 1]]).double().mean())

    def named(self, n: int, notes: tuple[str, ...]) -> Detection:
        """Return the detection that names the first ``n``, each with its most probable other label."""
        flagged = torch.zeros_like(self._known)
        flagged[self.order[:n]] = True
        other = self._p.scatter(1, self._labels[:, None], -1.0).argmax(1)
        return Detection.of(
            "labels", self.scores, flagged, self._labels, self._p.shape[1],
            suggested=torch.where(flagged, other, NO_LABEL), notes=notes,
        )  # fmt: skip


def _check(labels: Tensor, probabilities: Tensor) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise InvalidInput(
            f"probabilities of shape ({len(labels)}, n_classes) are expected, got {tuple(probabilities.shape)}"
        )
    if not bool(probabilities.isfinite().all()):
        row = int((~probabilities.isfinite()).any(1).nonzero()[0])
        raise InvalidInput(f"the probabilities of example {row} are not finite; the model has diverged")
    sums = probabilities.double().sum(1)
    if bool((probabilities < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
        raise InvalidInput(
            "rows of probabilities must be at least 0 and sum to 1; pass them through a softmax"
        )
    if len(torch.unique(labels)) < 2:
        raise InvalidInput("all labels are of one class; label errors can be told among two classes at least")
