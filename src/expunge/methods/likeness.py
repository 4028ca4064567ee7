"""How much the features of examples of one label are like those of some of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.methods.two_means import two_means
from expunge.models.head import find_head
from expunge.training.features import layers_with_rows, see_layers
from expunge.training.numerics import Numerics

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


class Likeness:
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


def whitenings(model: nn.Module, train: Examples, layers: list[str], numerics: Numerics) -> dict[str, Tensor]:
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


def telling_layers(model: nn.Module, train: Examples, numerics: Numerics) -> list[str]:
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
