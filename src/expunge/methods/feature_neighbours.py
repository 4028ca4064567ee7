"""Unlisted examples that look, inside the network, like those that are known to be corrupted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.stats import binom, norm
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.models.head import find_head
from expunge.training.features import layers_with_rows, see_layers
from expunge.training.numerics import Numerics

_FEWEST = 10
"""Fewest unlisted examples of a label; with fewer, a cut in two means nothing."""
_MOST_LAYERS = 12
"""Layers that are looked at, evenly spaced: neighbouring layers tell nearly the same."""
_SAMPLE = 8192
"""Examples of a label that are looked at first, so that memory stays bounded."""
_WIDEST = 1024
"""Columns above which a layer is not whitened: the price of a covariance grows with their cube."""
_OF_ALL = 2048
"""Examples of all labels that the covariances within labels are estimated from."""
_RIDGE = 0.1
"""Added to a covariance, in units of its mean variance."""
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
_ROUNDS = 3
"""Times the likeness is computed from all that were found."""


@dataclass(frozen=True)
class Cut:
    """Values cut in two where the variance within both parts is least.

    Attributes:
        threshold: between the parts.
        separation: distance between the parts' means over their pooled standard deviation; about 2.6 for one
            normal distribution cut in the middle, 3.5 for a uniform one.
    """

    threshold: float
    separation: float


def two_means(values: Tensor) -> Cut:
    """Return the exact one-dimensional two-means cut of ``values`` (N,), N >= 4, with two values a side."""
    ordered = values.cpu().double().sort().values  # not every accelerator has float64
    n = len(ordered)
    sums, below = ordered.cumsum(0)[:-1], torch.arange(1, n, dtype=torch.float64)
    total = ordered.sum()
    between = (sums / below - (total - sums) / (n - below)).square() * below * (n - below)
    last = int(between[1:-1].argmax()) + 1  # one value has no variance
    low, high = ordered[: last + 1], ordered[last + 1 :]
    spread = float(((low.var() + high.var()) / 2).sqrt())
    return Cut(
        threshold=float((low[-1] + high[0]) / 2),
        separation=float(high.mean() - low.mean()) / max(spread, 1e-12),
    )


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
    model: nn.Module, train: Examples, known: Tensor, numerics: Numerics, *, separation: float, share: float
) -> Neighbours:
    """Return the unlisted examples with the features of the known ones of their label.

    For each label of the known ones, and over the examples with that label, every example has a likeness (see
    :class:`_Likeness`). Corruption that follows a rule (a trigger, two exchanged classes) lies high; good examples
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
    the last cut has 922 of the others among 928. The share of good ones among them is read off the tail of a normal
    distribution fitted to those below.

    Args:
        model: in place for ``numerics``; it is left as it is.
        train: the training set.
        known: bool (N,), what is known to be corrupted.
        numerics: where to compute.
        separation: see above; in pooled standard deviations.
        share: a label of whose unlisted examples more than this share lies above has no neighbours.
    """
    found = torch.zeros_like(known)
    good: dict[int, float] = {}
    maps: dict[str, Tensor] = {}
    layers = _layers(model, train, numerics)
    of_label = torch.bincount(train.labels[known], minlength=train.n_classes).tolist()
    overall = torch.bincount(train.labels, minlength=train.n_classes).tolist()
    n_labels = sum(count > 0 for count in of_label)
    level = _BY_CHANCE if n_labels <= _BY_RULE else _BY_CHANCE / n_labels
    for label, count in enumerate(of_label):
        if not count or overall[label] - count < _FEWEST or not layers:
            continue
        rows = (train.labels == label).nonzero().flatten()
        concentrated = binom.sf(count - 1, sum(of_label), overall[label] / len(train)) <= _CONCENTRATED
        maps = maps or _whitenings(model, train, layers, numerics)
        likeness = _Likeness(model, train.select(rows), known[rows], layers, maps, numerics)
        first = _first_cut(likeness, bool(concentrated), separation, level)
        if first is None:
            continue
        above, expected = _refined(likeness, first, separation * (1.0 if concentrated else _ELSEWHERE))
        others = above & ~likeness.known
        if expected is not None and int(others.sum()) <= share * int((~likeness.known).sum()):
            found[rows] = others
            good[label] = expected
    return Neighbours(found, good)


def _first_cut(
    likeness: _Likeness, concentrated: bool, separation: float, level: float
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
    by_chance = float(binom.sf(inside - 1, count, others))
    level = _LIKE if not apart else 1.0 if concentrated else level
    return (values, parts) if inside >= _MEMBERS * count and by_chance <= level else None


def _refined(
    likeness: _Likeness, first: tuple[Tensor, Cut], separation: float
) -> tuple[Tensor, float | None]:
    """Compute the likeness from all above and cut again; return the last cut and the share of good ones above it.

    The share is ``None`` where the parts never lie ``separation`` apart, those of the first cut neither.
    """
    known, least = likeness.known, separation
    values, parts = first
    above = values > parts.threshold
    expected = _expected_good(values, parts, known) if parts.separation >= separation else None
    for _ in range(_ROUNDS):
        values = likeness(known | above)
        parts = two_means(values)
        # A set that runs over into a natural part of the class lies apart less and less.
        if parts.separation < least:
            break
        above, least = values > parts.threshold, parts.separation
        expected = _expected_good(values, parts, known)
    return above, expected


def _expected_good(values: Tensor, parts: Cut, known: Tensor) -> float:
    """Return the share of good ones above the cut, by the tail of a normal distribution fitted to those below."""
    above = values > parts.threshold
    below = values[~above].cpu().double()
    tail = float(norm.sf(parts.threshold, float(below.mean()), max(float(below.std()), 1e-9)))
    return min(1.0, len(below) * tail / max(1, int((above & ~known).sum())))


class _Likeness:
    """How much the features of each example of one label are like those of given members.

    sum over j of max(0, d_j)^2 z_ij, where j runs over the layers, each plain and whitened, and l_ij is the cosine of
    example i's centred features and the sum of the members' at length 1, itself left out. z_ij is l_ij
    standardised over the examples, d_j the mean of z_ij over the members less that over the others. Whitening by the
    covariance within labels brings out directions that good examples hardly vary in, as a trigger's are
    (Hayase et al., ICML 2021). Of an only member, the plain layer with the largest separation counts.

    Args:
        model: in evaluation mode it maps inputs to logits.
        examples: of one label.
        known: bool (N,), at least one; all of them are looked at first.
        layers: that put out a row for each example.
        maps: layer -> (D, D), whitens its features; layers without are taken plain only.
        numerics: where to compute.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Examples,
        known: Tensor,
        layers: list[str],
        maps: Mapping[str, Tensor],
        numerics: Numerics,
    ) -> None:
        self.known = known
        self._model, self._examples, self._layers, self._numerics = model, examples, layers, numerics
        # A fixed draw of the others, since it hardly matters which.
        others = (~known).nonzero().flatten()
        draw = torch.randperm(len(others), generator=torch.Generator().manual_seed(0)).to(known.device)
        first = known.nonzero().flatten()[: _SAMPLE // 2]
        self._sample = torch.cat([first, others[draw[: _SAMPLE - len(first)]]])
        self._rest = torch.ones_like(known)
        self._rest[self._sample] = False
        found: dict[str, list[Tensor]] = {name: [] for name in layers}
        see_layers(
            model,
            examples.select(self._sample),
            numerics,
            layers,
            lambda name, rows: found[name].append(rows),
        )
        self._views = [
            _View(name, rows, whitening)
            for name in layers
            for rows in [torch.cat(found.pop(name))]
            for whitening in ([None, maps[name]] if name in maps else [None])
        ]

    @torch.no_grad()
    def __call__(self, member: Tensor) -> Tensor:
        """Return float32 (N,); ``member`` is bool (N,)."""
        inside = member[self._sample]
        seen = torch.stack([view.of_sample(inside) for view in self._views], 1)
        mean, spread = seen.mean(0), seen.std(0).clamp(min=1e-6)
        seen = (seen - mean) / spread
        if int(inside.sum()) > 1:
            weights = (seen[inside].mean(0) - seen[~inside].mean(0)).clamp(min=0).square()
        else:
            plain = [not view.whitened for view in self._views]
            apart = [two_means(column).separation for column in seen[~inside].T]
            best = max(range(len(apart)), key=lambda j: apart[j] * plain[j])
            weights = F.one_hot(torch.tensor(best, device=seen.device), len(apart)).to(seen)
        values = torch.zeros(len(member), device=member.device)
        values[self._sample] = seen @ weights
        if bool(self._rest.any()):
            values[self._rest] = self._of_rest(mean, spread, weights)
        return values

    def _of_rest(self, mean: Tensor, spread: Tensor, weights: Tensor) -> Tensor:
        parts: list[Tensor] = []
        batch: dict[str, Tensor] = {}

        def score(name: str, rows: Tensor) -> None:
            batch[name] = rows
            if len(batch) == len(self._layers):
                found = torch.stack([view(batch[view.layer]) for view in self._views], 1)
                parts.append((found - mean) / spread @ weights)
                batch.clear()

        see_layers(self._model, self._examples.select(self._rest), self._numerics, self._layers, score)
        return torch.cat(parts)


class _View:
    """One layer's rows at length 1, centred, plain or whitened, and their cosines with the members' sum."""

    def __init__(self, layer: str, features: Tensor, whitening: Tensor | None) -> None:
        self.layer, self.whitened = layer, whitening is not None
        self._centre, self._map = features.mean(0), whitening
        self._rows = self._at_length_1(features)
        self._direction = torch.zeros_like(self._centre)

    def _at_length_1(self, features: Tensor) -> Tensor:
        rows = features - self._centre
        return F.normalize(rows if self._map is None else rows @ self._map, dim=1)

    def of_sample(self, member: Tensor) -> Tensor:
        """Cosine (S,) of each row of the sample and the sum of the members ``member`` (S,), itself left out."""
        self._direction = self._rows[member].sum(0)
        along, squared = self._rows @ self._direction, self._direction.square().sum()
        # z_i . (S - z_i) = z_i . S - 1 and |S - z_i|^2 = |S|^2 - 2 z_i . S + 1
        others = torch.where(member, squared - 2 * along + 1, squared).clamp(min=1e-12).sqrt()
        return torch.where(member, along - 1, along) / others

    def __call__(self, features: Tensor) -> Tensor:
        """Cosine (B,) of rows outside the sample with the sum of its members."""
        return self._at_length_1(features) @ F.normalize(self._direction, dim=0)


def _whitenings(
    model: nn.Module, train: Examples, layers: list[str], numerics: Numerics
) -> dict[str, Tensor]:
    """Return layer -> (D, D), for layers that are not too wide: the whitening of its features within the labels."""
    draw = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_OF_ALL]
    sample = train.select(draw)
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    see_layers(model, sample, numerics, layers, lambda name, rows: found[name].append(rows))
    maps = {}
    for name in layers:
        features = torch.cat(found.pop(name))
        if features.shape[1] > _WIDEST:
            continue
        sums = torch.zeros(train.n_classes, features.shape[1], device=features.device)
        sums.index_add_(0, sample.labels, features)
        counts = torch.bincount(sample.labels, minlength=train.n_classes).clamp(min=1)
        maps[name] = _whitening(features - (sums / counts[:, None])[sample.labels])
    return maps


def _whitening(centred: Tensor) -> Tensor:
    """Return (D, D): the inverse square root of the covariance of rows (N, D), with a ridge."""
    covariance = (centred.T @ centred / len(centred)).cpu()  # not every accelerator has eigenvalues
    ridge = _RIDGE * float(covariance.diagonal().mean()) + 1e-12
    values, vectors = torch.linalg.eigh(covariance)
    mapped: Tensor = (vectors * (values.clamp(min=0) + ridge).rsqrt()) @ vectors.T
    return mapped.to(centred.device)


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


def _layers(model: nn.Module, train: Examples, numerics: Numerics) -> list[str]:
    """Layers before the head that have a weight matrix of their own and put out a row for each example."""
    try:
        head = find_head(model, train.n_classes)
    except InvalidInput:
        head = None
    x = numerics.place_inputs(next(train.select(torch.arange(min(2, len(train)))).batches(2)).x)
    usable = layers_with_rows(model, x)
    names = [
        name
        for name, module in model.named_modules()
        # A few logits fall into parts of their own accord.
        if module is not head
        and name in usable
        and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    ]
    if len(names) <= _MOST_LAYERS:
        return names
    steps = torch.linspace(0, len(names) - 1, _MOST_LAYERS).round().long().tolist()
    return [names[step] for step in steps]
