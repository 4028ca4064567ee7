"""Unlisted examples that look, inside the network, like those that are known to be corrupted."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from scipy.special import bdtrc, ndtri, stdtr
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.methods.likeness import Likeness, telling_layers, whitenings
from expunge.methods.two_means import Cut, two_means
from expunge.training.numerics import Numerics

_FEWEST = 10
"""Fewest unlisted examples of a label; with fewer, a cut in two means nothing."""
_MANY = 10
"""Known examples of a label from which the share of them above a cut is a measure of it."""
_MEMBERS = 0.75
"""Share of the known examples that must lie above a cut."""
_CONCENTRATED = 0.01
"""Level of the test whether the known examples have a label more often than chance would."""
_LIKE = 1e-3
"""Level of the test whether known examples lie above the cut more often than the others, where they do."""
_BY_CHANCE = 0.1
"""Level of that test where they are not concentrated and the values fall into two parts."""
_BY_RULE = 3
"""Labels with known examples that a rule makes: a trigger has one, an exchange two. More are made by chance, and each
may lie in a natural part of its class, so that they share the level."""
_BEGINNING = 0.9
"""Times the separation from which parts are a beginning."""
_ELSEWHERE = 1.2
"""Times the separation that a label needs where they do not."""
_TAIL = 4
"""Degrees of freedom of the t distribution by whose tail good ones are counted (results/relearn.md)."""
_MOSTLY = 0.5
"""Share of good ones above which a label has no neighbours: so it is where its list is complete."""
_ROUNDS = 3
"""Times the likeness is computed from all that were found."""


@dataclass(frozen=True)
class Neighbours:
    """Unlisted examples with the features of the known ones of their label.

    Attributes:
        found: bool (N,) over the training set.
        good: label -> the share of its found ones that is expected to be good, in [0, 1].
    """

    found: Tensor
    good: Mapping[int, float]


def feature_neighbours(
    model: nn.Module,
    train: Examples,
    known: Tensor,
    numerics: Numerics,
    *,
    separation: float,
    share: float,
    learned: Collection[int] = (),
) -> Neighbours:
    """Return the unlisted examples with the features of the known ones of their label.

    For each label of the known ones, and over the examples with that label, every example has a likeness (see
    :class:`Likeness`). Corruption that follows a rule (a trigger, two exchanged classes) lies high; good examples
    and labels at random do not.

    The values are cut by two means. Parts that lie nearly ``separation`` pooled standard deviations apart are a
    beginning, if three in four known ones lie above, and more of them than of the others, where they do not have the
    label more often than chance would (binomial tests at 10 and 1 %, the former shared by the labels where more than
    three have known ones). Where they do have it more often, parts that do not lie apart are a beginning as well, if
    more of them lie above than of the others (at 0.1 %); of ten known ones or more, the cut is then that with the
    largest r^2 / q, r the share of them above it and q that of the others (Lee and Liu, ICML 2003: proportional to F1
    squared).

    Then those above are taken for known, the likeness is computed from all of them, and the values are cut by two means
    again, three times at most and as long as the parts lie ``separation`` apart, and farther each time. Classes have
    parts by nature too: where the known ones do not have the label more often than chance would, it is a fifth more. A
    label whose parts never lie so far apart has no neighbours. With 10 of 1,000 triggered images of CIFAR-10 known,
    the last cut has 922 of the others among 928. The share of good ones among them is read off the tail of a t
    distribution fitted to those below; a label of which it says that most are good has no neighbours.

    Args:
        model: in place for ``numerics``; it is left as it is.
        train: the training set.
        known: bool (N,), what is known to be corrupted.
        numerics: where to compute.
        separation: see above; in pooled standard deviations.
        share: a label of whose unlisted examples more than this share lies above has no neighbours.
        learned: labels whose rule ``model`` is known to have learned, and then the only ones that are looked at: the
            first cut is read off the known ones, parts need not lie apart, and it is the last.
    """
    found = torch.zeros_like(known)
    good: dict[int, float] = {}
    maps: dict[str, Tensor] = {}
    layers = telling_layers(model, train, numerics)
    of_label = torch.bincount(train.labels[known], minlength=train.n_classes).tolist()
    overall = torch.bincount(train.labels, minlength=train.n_classes).tolist()
    n_labels = sum(count > 0 for count in of_label)
    level = _BY_CHANCE if n_labels <= _BY_RULE else _BY_CHANCE / n_labels
    for label, count in enumerate(of_label):
        if not count or overall[label] - count < _FEWEST or not layers or (learned and label not in learned):
            continue
        rows = (train.labels == label).nonzero().flatten()
        concentrated = bdtrc(count - 1, sum(of_label), overall[label] / len(train)) <= _CONCENTRATED
        maps = maps or whitenings(model, train, layers, numerics)
        likeness = Likeness(model, train.select(rows), known[rows], layers, maps, numerics)
        first = _first_cut(likeness, bool(concentrated), math.inf if learned else separation, level)
        if first is None:
            continue
        least = 0.0 if learned else separation * (1.0 if concentrated else _ELSEWHERE)
        above, expected = _refined(likeness, first, least, rounds=0 if learned else _ROUNDS)
        others = above & ~likeness.known
        few = int(others.sum()) <= share * int((~likeness.known).sum())
        if few and expected is not None and expected <= _MOSTLY:
            found[rows] = others
            good[label] = expected
    return Neighbours(found, good)


def _first_cut(
    likeness: Likeness, concentrated: bool, separation: float, level: float
) -> tuple[Tensor, Cut] | None:
    """Return the likenesses and the first cut; ``None`` if it says nothing."""
    known = likeness.known
    count, values = int(known.sum()), likeness(known)
    # The likeness of an only member is to nothing.
    parts = two_means(values if count > 1 else values[~known])
    if count == 1:
        # Nothing can be tested of an only one, so that it counts where few labels have any.
        apart = parts.separation >= separation * _ELSEWHERE and level >= _BY_CHANCE
        return (values, parts) if apart else None
    apart = parts.separation >= separation * _BEGINNING
    if not (apart or concentrated):
        return None
    if not apart and count >= _MANY:
        # Where it is read off the known ones, the parts need not lie apart.
        parts = Cut(_best_cut(values, known), 0.0)
    above = values > parts.threshold
    inside, others = int(above[known].sum()), float(above[~known].float().mean())
    by_chance = float(bdtrc(inside - 1, count, others))
    level = _LIKE if not apart else 1.0 if concentrated else level
    return (values, parts) if inside >= _MEMBERS * count and by_chance <= level else None


def _refined(
    likeness: Likeness, first: tuple[Tensor, Cut], separation: float, rounds: int = _ROUNDS
) -> tuple[Tensor, float | None]:
    """Compute the likeness from all above and cut again; return the last cut and the share of good ones above it.

    The share is ``None`` where the parts never lie ``separation`` apart, those of the first cut neither.
    """
    known, least = likeness.known, separation
    values, parts = first
    above = values > parts.threshold
    expected = _expected_good(values, parts, known) if parts.separation >= separation else None
    for _ in range(rounds):
        values = likeness(known | above)
        parts = two_means(values)
        # A set that runs over into a natural part of the class lies apart less and less.
        if parts.separation < least:
            break
        above, least = values > parts.threshold, parts.separation
        expected = _expected_good(values, parts, known)
    return above, expected


def _expected_good(values: Tensor, parts: Cut, known: Tensor) -> float:
    """Return the share of good ones among the unlisted above the cut, by the tail of those below.

    It is that of Student's t around their median, scaled by their median absolute deviation: likeness has heavier tails
    than a normal distribution, which states a tenth where a half is good.
    """
    above = values > parts.threshold
    below = values[~above].cpu().double()
    middle = below.median()
    spread = max(float((below - middle).abs().median()) / float(ndtri(0.75)), 1e-9)
    tail = float(stdtr(_TAIL, (float(middle) - parts.threshold) / spread))
    return min(1.0, len(below) * tail / max(1, int((above & ~known).sum())))


def _best_cut(values: Tensor, member: Tensor) -> float:
    """Return the threshold with the largest r^2 / q, r at least three in four; just below the value of a member."""
    of_members, others = values[member].sort().values, values[~member].sort().values
    n = len(of_members)
    candidates = of_members[: n - math.ceil(_MEMBERS * n) + 1]
    recall = 1 - torch.arange(len(candidates), device=values.device) / n
    above = len(others) - torch.searchsorted(others, candidates)
    merit = recall.square() / above.clamp(min=1)
    chosen = candidates[merit.argmax()]
    return float(torch.nextafter(chosen, chosen - 1))
