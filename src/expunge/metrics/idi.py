"""Information difference index: how much the layers still tell about what was to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch
from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.metrics.base import Compares, Evaluated, Metric, Value
from expunge.training.cost import Meter
from expunge.training.features import layer_features, layer_names
from expunge.training.initialisation import reinitialise
from expunge.training.loop import Loss, fit, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser

_LEAST_DIFFERENCE = 0.01
"""In nats: a smaller difference of original and retrained is the estimator's noise, no denominator."""
_SMALLEST_SPREAD = 1e-6
"""A feature that is constant is not scaled up."""


def info_nce(scores: Tensor, labels: Tensor) -> Tensor:
    """I = mean_k [s(z_k, y_k) - log mean_j exp s(z_k, y_j)], in nats: a scalar of the scores' dtype.

    k and j run over the examples. A lower bound of the mutual information of z and y in expectation; at
    most the entropy of the labels.

    Symbols: s(z_k, c) -> ``scores`` (K, C), y -> ``labels`` int64 (K,).

    Raises:
        InvalidInput: no example.

    Source: van den Oord et al., 2018.
    """
    if len(labels) == 0:
        raise InvalidInput("mutual information of no examples was asked for; give at least one")
    # mean_j exp s(z_k, y_j) = sum_c pi_c exp s(z_k, c), with pi_c the share of class c
    share = torch.bincount(labels, minlength=scores.shape[1]).to(scores.dtype) / len(labels)
    matching = scores.gather(1, labels[:, None]).squeeze(1)
    return (matching - (scores + share.log()).logsumexp(1)).mean()


def difference_index(
    unlearned: Mapping[str, float], original: Mapping[str, float], retrained: Mapping[str, float]
) -> dict[str, float]:
    """Return layer -> its part of IDI = sum_l [I_u(l) - I_r(l)] / sum_l [I_o(l) - I_r(l)]; their sum is the index.

    0: as much information as after retraining; 1: as much as before; below 0: less than after retraining. Given is
    layer -> information, in nats, of each of the three models.

    Raises:
        InvalidInput: the layers differ, or the original holds hardly more than the retrained model.

    Source: Jeon et al., AAAI 2026, arXiv 2405.17878.
    """
    if not unlearned.keys() == original.keys() == retrained.keys() or not unlearned:
        raise InvalidInput(
            "the same layers of three models are expected, got "
            f"{sorted(unlearned)}, {sorted(original)} and {sorted(retrained)}"
        )
    whole = sum(original[layer] - retrained[layer] for layer in original)
    if not whole > _LEAST_DIFFERENCE:
        raise InvalidInput(
            f"the original's layers tell {whole:.4f} nats more about the forget set than the retrained model's; "
            f"more than {_LEAST_DIFFERENCE} are needed for the index"
        )
    return {layer: (unlearned[layer] - retrained[layer]) / whole for layer in unlearned}


class Critic(nn.Module):
    """s(z, y) = f(z) . g(y): f a network with one hidden layer, g one trained vector for each label."""

    def __init__(self, inputs: int, hidden: int, projection: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, projection))
        self.label = nn.Embedding(2, projection)

    def forward(self, z: Tensor) -> Tensor:
        """Return scores (B, 2) for features (B, D)."""
        scores: Tensor = self.project(z) @ self.label.weight.T
        return scores


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Settings of the estimate of mutual information.

    Args:
        hidden: units of the critic's hidden layer.
        projection: dimension in which features and labels meet.
        optimiser: of the critic.
        epochs: passes over the half it is trained on.
        batch_size: examples a step.

    Raises:
        InvalidInput: a number below one.
    """

    hidden: int = 64
    projection: int = 16
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(name="adam", lr=1e-3, weight_decay=1e-4))
    epochs: int = 30
    batch_size: int = 128

    def __post_init__(self) -> None:
        if min(self.hidden, self.projection, self.epochs, self.batch_size) < 1:
            raise InvalidInput(
                "the estimator needs hidden, projection, epochs and batch_size of at least 1, got "
                f"{self.hidden}, {self.projection}, {self.epochs} and {self.batch_size}"
            )

    def information(self, z: Tensor, forget: Tensor, generator: torch.Generator) -> float:
        """Return the estimate of I(Z; Y) in nats, Y = 1 for the forget set, at least 0.

        A critic is trained on one half of the examples and read by :func:`info_nce` on the other, after each
        pass: the largest value counts, and 0, which a constant critic gives. The halves then change places;
        the estimate is the mean of the two.

        Args:
            z: features (N, D).
            forget: bool (N,), members of the forget set; at least two members and two others.
            generator: CPU generator of the halves, the critics and the order.

        Raises:
            InvalidInput: too few examples, or features that are not finite.
        """
        if min(int(forget.sum()), int((~forget).sum())) < 2:
            raise InvalidInput(
                "mutual information needs two examples of the forget set and two others, got "
                f"{int(forget.sum())} and {int((~forget).sum())}"
            )
        if not bool(z.isfinite().all()):
            raise InvalidInput(
                "the features hold NaN or inf; the model has diverged, lower its learning rate"
            )
        z, labels = z.float().cpu(), forget.long().cpu()
        first, second = _halves(labels, generator)
        both = (
            self._held_out(z, labels, *halves, generator) for halves in ((first, second), (second, first))
        )
        return sum(both) / 2

    def _held_out(
        self, z: Tensor, labels: Tensor, train: Tensor, held_out: Tensor, generator: torch.Generator
    ) -> float:
        scaled = (z - z[train].mean(0)) / z[train].std(0).clamp_min(_SMALLEST_SPREAD)
        critic = Critic(z.shape[1], self.hidden, self.projection)
        reinitialise(critic, generator)
        optimizer = self.optimiser.over(critic)
        numerics = Numerics(channels_last=False)
        known = in_memory(scaled[train], labels[train], 2)
        asked = in_memory(scaled[held_out], labels[held_out], 2)
        best = 0.0
        for _ in range(self.epochs):
            fit(critic, [known.batches(self.batch_size, generator)], _contrast, optimizer, numerics, Meter())
            scores = predict(critic, asked, numerics)
            best = max(best, float(info_nce(scores.double(), labels[held_out])))
        return best


def _contrast(model: nn.Module, batch: Batch) -> Loss:
    return Loss(-info_nce(model(batch.x).float(), batch.y), len(batch))


def _halves(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of two random halves with equal shares of each label."""
    parts = [(labels == label).nonzero().flatten() for label in (0, 1)]
    mixed = [part[torch.randperm(len(part), generator=generator)] for part in parts]
    first = torch.cat([part[: len(part) // 2] for part in mixed])
    second = torch.cat([part[len(part) // 2 :] for part in mixed])
    return first, second


@dataclass(frozen=True, kw_only=True)
class IDI(Metric):
    """Information difference index: what the layers tell about the forget set, between retrained and original.

    0 like the retrained model, 1 like the original, below 0 less than the retrained. It sees what a change
    of the last layer hides from every metric of the output. "idi_" + layer is what a layer adds to the index:
    :func:`~expunge.metrics.idi.difference_index` of estimates of I(Z_l; Y), with Y telling D_f from as many of D_r.
    Retrainings differ too, on some hundred examples by half of the range: read it beside a second one.

    Args:
        layers: names as in ``model.named_modules()``; none: every part of the model before the head.
        max_examples: of the forget set, and as many of the retain set.
        estimator: of the mutual information.
        seed: of the choice of examples, of halves and critics.

    Departures: the critic is one network with a hidden layer on pooled features, where the paper trains the
    model's own remaining layers; it is trained on one half of the examples and read on
    the other; there are as many retained as forgotten examples.
    """

    name = "idi"
    unit = "index"
    better = "reference"
    compares = Compares.ORIGINAL | Compares.RETRAINED
    source = "Jeon et al., AAAI 2026, arXiv 2405.17878"

    layers: tuple[str, ...] = ()
    max_examples: int = 1000
    estimator: Estimator = field(default_factory=Estimator)
    seed: int = 0

    def information(self, evaluated: Evaluated) -> dict[str, float]:
        """Return layer -> information, in nats, of one model; not defined for too few examples."""
        split = evaluated.problem.split
        count = min(self.max_examples, len(split.forget), len(split.retain))
        draw = torch.Generator().manual_seed(self.seed)
        forget, retain = (
            part.select(torch.randperm(len(part), generator=draw)[:count])
            for part in (split.forget, split.retain)
        )
        names = self.layers or tuple(layer_names(evaluated.model, evaluated.problem.n_classes))
        first, second = (
            layer_features(evaluated.model, part, evaluated.numerics, names) for part in (forget, retain)
        )
        member = torch.cat([torch.ones(count), torch.zeros(count)]).bool()
        return {
            layer: self.estimator.information(
                torch.cat([first[layer], second[layer]]).cpu(),
                member,
                torch.Generator().manual_seed(self.seed),
            )
            for layer in names
        }

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The index, and each layer's part of it; not defined where original and retrained hold the same."""
        parts = difference_index(
            self.information(evaluated),
            self.information(evaluated.original),
            self.information(evaluated.retrained),
        )
        return {
            self.name: Value(sum(parts.values())),
            **{f"{self.name}_{layer}": Value(part) for layer, part in parts.items()},
        }
