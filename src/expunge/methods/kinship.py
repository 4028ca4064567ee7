"""Which examples look, inside the network, like those that are known to be corrupted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.models.head import find_head
from expunge.training.features import layers_with_rows, see_layers
from expunge.training.numerics import Numerics

_FEWEST = 10
"""Examples of a label that nobody named, below which it is not searched: they show no two parts."""
_LEVEL = 0.01
"""Of the test whether the known ones name a label more often than chance would."""
_NO_RULE = 1.2
"""Times the separation that a label needs where they do not."""
_MEMBERS = 0.75
"""Share of the known ones that must fall into the upper part."""
_MANY = 10
"""Known ones of a label from which their share above a cut is a measure of it."""
_SURE = 1e-6
"""Of the test whether more of them do than of the others."""
_RULE = 0.9
"""Times the separation that a label needs where that is beyond doubt, and they name it more often than chance."""


@dataclass(frozen=True)
class Cut:
    """Values cut in two where the variance within both parts is least.

    Attributes:
        threshold: between the parts.
        share: of the values above it.
        distance: between the parts' means.
        separation: ``distance`` over the pooled standard deviation of the parts; about 2.6 for one
            normal distribution cut in the middle, 3.5 for a uniform one.
    """

    threshold: float
    share: float
    distance: float
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
    distance = float(high.mean() - low.mean())
    spread = float(((low.var() + high.var()) / 2).sqrt())
    return Cut(
        threshold=float((low[-1] + high[0]) / 2),
        share=len(high) / n,
        distance=distance,
        separation=distance / max(spread, 1e-12),
    )


def kin(
    model: nn.Module, train: Examples, known: Tensor, numerics: Numerics, *, separation: float, share: float
) -> Tensor:
    """Return bool (N,) over ``train``: the examples that are corrupted in the way the known ones are.

    For each stored label y of the known ones, and each layer: with z_i what the layer puts out for
    an example labelled y, less the mean over them and at length 1, the likeness of i is the cosine of z_i and the
    sum of z_j over the known j != i. Corruption that follows a rule (a trigger, a swap of classes) cuts the
    likeness in two, the known ones above; good examples and labels at random do not.
    Among the layers whose parts lie far enough apart, and where not too many are above the cut, that one names whose
    parts lie farthest apart; where ten or more of a label are known, that whose cut tells them best from the others.
    Of a label's only known example nothing can be asked but how it cuts the others.

    Classes fall into parts by nature too, and the more layers, the more chances. So a label that the known ones
    do not name more often than chance would (binomial test at 1 %), which tells of no rule, needs a fifth more. One
    that they do name more often, and of which they fall above the cut so much more often than the others that chance
    would do it once in a million times, needs a tenth less: a trigger in photographs does not cut so sharply.

    Args:
        model: in place for ``numerics``; it is left as it is.
        train: the training set.
        known: bool (N,), what is known to be corrupted.
        numerics: where to compute.
        separation: at least this many pooled standard deviations between the two parts.
        share: at most this share of a label's other examples is named.
    """
    named = torch.zeros_like(known)
    layers = _layers(model, train, numerics)
    members = torch.bincount(train.labels[known], minlength=train.n_classes).tolist()
    overall = torch.bincount(train.labels, minlength=train.n_classes).tolist()
    for label, count in enumerate(members):
        if not count or overall[label] - count < _FEWEST:
            continue
        rows = (train.labels == label).nonzero().flatten()
        member = known[rows]
        chance = binomtest(count, sum(members), overall[label] / len(train), alternative="greater").pvalue
        ruled, best = bool(chance <= _LEVEL), 0.0
        for likeness in likenesses(model, train.select(rows), member, layers, numerics).values():
            # What an only member is like without itself is nothing.
            cut = two_means(likeness if count > 1 else likeness[~member])
            upper = likeness > cut.threshold
            inside = int(upper[member].sum()) if count > 1 else 1
            above = float(upper[~member].double().mean())
            sure = ruled and bool(binomtest(inside, count, above, alternative="greater").pvalue <= _SURE)
            needed = separation * (_RULE if sure else 1.0 if ruled else _NO_RULE)
            if cut.separation < needed or inside < _MEMBERS * count or above > share:
                continue
            # Of many known ones, those above are the recall of the cut: r^2 over the share of the others above rises
            # with recall and precision (Lee and Liu, ICML 2003). Of few they say little.
            merit = (inside / count) ** 2 / max(above, 1e-9) if count >= _MANY else cut.separation
            if merit > best:
                best = merit
                named[rows] = upper & ~member
    return named


def likenesses(
    model: nn.Module, examples: Examples, member: Tensor, layers: list[str], numerics: Numerics
) -> dict[str, Tensor]:
    """Return layer -> float32 (N,), how much each example is like the members, itself left out; see :func:`kin`.

    Args:
        model: in evaluation mode it maps inputs to logits.
        examples: of one label.
        member: bool (N,), at least one; an only one has likeness 0.
        layers: that put out a row for each example.
        numerics: where to compute.
    """
    # Three passes, so that of each layer only two vectors are held.
    total: dict[str, Tensor] = {}
    direction: dict[str, Tensor] = {}
    cosines: dict[str, list[Tensor]] = {name: [] for name in layers}

    def add(to: dict[str, Tensor], name: str, rows: Tensor) -> None:
        to[name] = to.get(name, 0) + rows.sum(0)

    def centred(name: str, rows: Tensor) -> Tensor:
        return F.normalize(rows - total[name] / len(examples), dim=1)

    see_layers(model, examples, numerics, layers, lambda name, rows: add(total, name, rows))
    see_layers(
        model, examples.select(member), numerics, layers,
        lambda name, rows: add(direction, name, centred(name, rows)),
    )  # fmt: skip
    see_layers(
        model, examples, numerics, layers,
        lambda name, rows: cosines[name].append(centred(name, rows) @ direction[name]),
    )  # fmt: skip
    found = {}
    for name, parts in cosines.items():
        along = torch.cat(parts)
        squared = direction[name].square().sum()
        # z_i . (S - z_i) = z_i . S - 1 and |S - z_i|^2 = |S|^2 - 2 z_i . S + 1
        others = torch.where(member, squared - 2 * along + 1, squared).clamp(min=1e-12).sqrt()
        found[name] = torch.where(member, along - 1, along) / others
    return found


def _layers(model: nn.Module, train: Examples, numerics: Numerics) -> list[str]:
    """Every layer before the head that has a weight matrix of its own and puts out a row for each example."""
    try:
        head = find_head(model, train.n_classes)
    except InvalidInput:
        head = None
    x = numerics.place_inputs(next(train.select(torch.arange(min(2, len(train)))).batches(2)).x)
    usable = layers_with_rows(model, x)
    return [
        name
        for name, module in model.named_modules()
        # A few logits fall into parts of their own accord.
        if module is not head
        and name in usable
        and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    ]
