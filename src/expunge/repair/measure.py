"""A model before and after a repair, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.attack_scores import entropy, loss, modified_entropy
from expunge.metrics.roc import Roc, bootstrap
from expunge.seeding import generator
from expunge.training.loop import predict
from expunge.training.numerics import Numerics

_FEWEST = 10
"""Members, and others, below which an attack says nothing."""


@dataclass(frozen=True)
class Share:
    """How many of how many; never of none."""

    right: int
    of: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.right / self.of


@dataclass(frozen=True)
class Attack:
    """AUC of a membership attack: 1/2 where listed rows look like rows never trained on.

    Args:
        auc: in [0, 1].
        low: lower end of the 95 % bootstrap interval over rows; ``None`` where it was not computed.
        high: upper end.
    """

    auc: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Measured:
    """What one model does; shares are of rows. ``None`` where there is nothing to measure it on.

    Args:
        retained: rows that are not listed, with their stored label as prediction.
        forget_as_stored: listed rows that are still given their stored label.
        validation: right on the validation set; without the classes that are forgotten whole.
        healed_known: listed rows whose stored label is known to be wrong, of those that are given the true one.
        healed_unknown: the same among bad rows that are not listed.
        per_class: right, class by class, on the validation set, else on the retained rows.
        attacks: name of a score -> membership attack, listed rows against the validation set.
        predictions: int64 (N,) on the training data, -1 where the logits are NaN.
    """

    retained: Share
    forget_as_stored: Share
    validation: Share | None
    healed_known: Share | None
    healed_unknown: Share | None
    per_class: tuple[Share | None, ...]
    attacks: dict[str, Attack]
    predictions: Tensor


@dataclass(frozen=True)
class Yardstick:
    """What models are measured on.

    Args:
        train: the training data with its stored labels.
        forget: bool (N,), the listed rows.
        validation: examples the model was not trained on.
        true_labels: int64 (N,), negative where the true label is not known.
        forgotten_classes: those that are to be forgotten whole.
    """

    train: Examples
    forget: Tensor
    validation: Examples | None = None
    true_labels: Tensor | None = None
    forgotten_classes: tuple[int, ...] = ()


def measure(
    model: nn.Module, on: Yardstick, numerics: Numerics, *, batch_size: int = 256, seed: int = 0
) -> Measured:
    """Return what ``model`` does on ``on``, in evaluation mode; ``seed`` draws the intervals."""
    trained = predict(model, on.train, numerics, batch_size).cpu()
    labels, predictions = on.train.labels.cpu(), _predicted(trained)
    held_out = None
    if on.validation is not None:
        held_out = predict(model, on.validation, numerics, batch_size).cpu()
    known = unknown = None
    if on.true_labels is not None:
        # A row outside the list is bad where its true label is known and is another one.
        bad = (on.true_labels >= 0) & (on.true_labels != labels)
        known = _share(predictions == on.true_labels, bad & on.forget)
        unknown = _share(predictions == on.true_labels, bad & ~on.forget)
    retained = _share(predictions == labels, ~on.forget)
    as_stored = _share(predictions == labels, on.forget)
    assert retained is not None
    assert as_stored is not None
    if held_out is None or on.validation is None:
        per_class = _per_class(predictions, labels, ~on.forget, on.train.n_classes)
        validation, attacks = None, {}
    else:
        answers, theirs = _predicted(held_out), on.validation.labels.cpu()
        everything = torch.ones(len(theirs), dtype=torch.bool)
        per_class = _per_class(answers, theirs, everything, on.train.n_classes)
        of_forgotten = torch.isin(theirs, torch.tensor(on.forgotten_classes, dtype=torch.int64))
        validation = _share(answers == theirs, ~of_forgotten)
        # Beside a class that is forgotten stand unseen rows of that class, not of the others.
        others = of_forgotten if on.forgotten_classes else everything
        attacks = _attacks(trained[on.forget], labels[on.forget], held_out[others], theirs[others], seed)
    return Measured(retained, as_stored, validation, known, unknown, per_class, attacks, predictions)


def _predicted(logits: Tensor) -> Tensor:
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


def _share(right: Tensor, among: Tensor) -> Share | None:
    count = int(among.sum())
    return Share(int((right & among).sum()), count) if count else None


def _per_class(
    predictions: Tensor, labels: Tensor, among: Tensor, n_classes: int
) -> tuple[Share | None, ...]:
    right = predictions == labels
    return tuple(_share(right, among & (labels == label)) for label in range(n_classes))


def _attacks(members: Tensor, stored: Tensor, others: Tensor, theirs: Tensor, seed: int) -> dict[str, Attack]:
    if min(len(members), len(others)) < _FEWEST:
        return {}
    try:
        by_loss = Roc(-loss(members, stored), -loss(others, theirs))
        curves = {
            "entropy": Roc(-entropy(members), -entropy(others)),
            "modified entropy": Roc(-modified_entropy(members, stored), -modified_entropy(others, theirs)),
        }
    except InvalidInput:
        return {}  # logits that are not finite, or a single class
    low, high = bootstrap(by_loss, [Roc.auc], generator(seed, "membership"))[0]
    return {"loss": Attack(by_loss.auc(), low, high)} | {
        name: Attack(curve.auc()) for name, curve in curves.items()
    }
