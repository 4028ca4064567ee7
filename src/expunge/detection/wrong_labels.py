"""Wrong labels by what a network that has not memorised them says, and how many of them are named."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.detection.cut import known_cut, most_errors, stand_out, upper_limit
from expunge.detection.noise_model import noise_model
from expunge.detection.result import NO_LABEL, Detection
from expunge.errors import InvalidInput

SHOWN = 50
"""Rows that are shown where no list can be made."""
_WORTHLESS = 0.1
"""Expected share of wrong ones below which no list is made."""
_CLEARLY = 1.2
"""Times the merit of 1 - p by which the known rows must speak for the other ranking."""
_FEW = 5
"""Known rows below which they do not set the cut."""


@dataclass(frozen=True)
class WrongLabels:
    """The rows whose label is taken to be wrong, and what to think of that list.

    Attributes:
        found: the detection; its score is 1 - p of the given label, or the probability that it is wrong.
        estimated: number of wrong labels that are expected, known ones apart.
        precision: share of the named rows that is expected to be wrong; ``None`` if none is named.
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

    The score of i is 1 - p_i[y_i]. How many are wrong is what :func:`~expunge.detection.noise_model.noise_model`
    expects; that many are named. With a list of five rows or more,

    - the score is the probability that this model gives, where the known rows stand clearly higher by it: it is better
      where wrong labels follow a rule (two classes exchanged) and worse where they do not;
    - the cut is that of :func:`~expunge.detection.cut.known_cut`, if it names fewer than the number that is expected:
      the errors expected among the worst, over the share of the known ones there, and no more than
      :func:`~expunge.detection.cut.most_errors`;
    - known rows that are not ranked above the others say that the ranking is worth nothing: then the fifty worst are
      named, and the result is not usable. Nor is it where less than a tenth of the named are expected to be wrong.

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
    model = noise_model(p, labels)
    expected, count = float(model.wrong[~known].sum()), int(known.sum())
    guided, recall = count >= _FEW, None
    notes: list[str] = []
    scores = 1 - p.gather(1, labels[:, None]).squeeze(1)
    if guided and known_cut(model.wrong, known).merit > _CLEARLY * known_cut(scores, known).merit:
        scores = model.wrong
    order = scores.masked_fill(known, -1.0).argsort(descending=True, stable=True)[: len(labels) - count]

    def judged(n: int, precision: float | None, usable: bool = True) -> WrongLabels:
        named = torch.zeros_like(known)
        named[order[:n]] = True
        other = p.scatter(1, labels[:, None], -1.0).argmax(1)
        found = Detection.of(
            "labels", scores, named, labels, p.shape[1], suggested=torch.where(named, other, NO_LABEL),
            notes=tuple(notes),
        )  # fmt: skip
        return WrongLabels(found, expected, precision, recall, usable)

    if guided and not stand_out(scores, known):
        notes.append(
            f"no usable list: the {count} known rows are not ranked above the others, so that this says nothing of "
            f"rows like them; here are the {min(SHOWN, len(order))} worst"
        )
        return judged(SHOWN, None, usable=False)
    n = round(expected)
    precision = float(model.wrong[order[:n]].mean()) if n else None
    if guided:
        cut = known_cut(scores, known)
        expected = min(_corrected(expected, model.wrong, scores, known, order), most_errors(scores, known))
        recall = cut.recall
        notes.append(
            f"{recall:.0%} of the {count} known rows stand among the {cut.count:,} worst of the others; about "
            f"{expected:,.0f} more are expected to be wrong"
        )
        n = min(cut.count, round(expected))
        if n < cut.count:
            recall = float((scores[known] >= scores[order[n - 1]]).double().mean()) if n else 0.0
            notes.append(f"on so weak a ranking the list ends at the {n:,} that are expected")
        precision = min(1.0, recall * expected / n) if n else None
    elif count:
        notes.append(f"{count} known rows are too few to set the cut; {_FEW} would do")
    if precision is not None and precision < _WORTHLESS:
        notes.append(
            f"no usable list: only {precision:.0%} of it would be wrong; here are the {min(SHOWN, len(order))} worst"
        )
        return judged(SHOWN, precision, usable=False)
    return judged(n, precision)


def _corrected(expected: float, wrong: Tensor, scores: Tensor, known: Tensor, order: Tensor) -> float:
    """Return the larger of ``expected`` and the errors expected above that cut, over the share of known ones there.

    What the network has learned again of the wrong labels hides in the probabilities below the cut, not in that share.
    """
    n = max(1, round(expected))
    share = (scores[known] >= scores[order[n - 1]]).double().mean()
    # few known ones, none of which happens to lie there, shall not make thousands
    return max(expected, float(wrong[order[:n]].sum()) / float(upper_limit(share, int(known.sum()))))


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
