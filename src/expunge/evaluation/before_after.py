"""A model before and after a repair, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.training.loop import predict
from expunge.training.numerics import Numerics


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
class Measured:
    """What one model does; shares are of rows. ``None`` where there is nothing to measure it on.

    Args:
        retained: rows that are not listed, with their given label as prediction.
        forget_as_stored: listed rows that are still given their given label.
        validation: right on the validation set; without the classes that are forgotten whole.
        healed_known: listed rows whose given label is known to be wrong, of those that are given the true one.
        healed_unknown: the same among bad rows that are not listed.
        per_class: right, class by class, on the validation set, else on the retained rows.
        predictions: int64 (N,) on the training data, -1 where the logits are NaN.
    """

    retained: Share
    forget_as_stored: Share
    validation: Share | None
    healed_known: Share | None
    healed_unknown: Share | None
    per_class: tuple[Share | None, ...]
    predictions: Tensor


@dataclass(frozen=True)
class Yardstick:
    """What models are measured on.

    Args:
        train: the training data with its given labels.
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


def measure(model: nn.Module, on: Yardstick, numerics: Numerics, *, batch_size: int = 256) -> Measured:
    """Return what ``model`` does on ``on``, in evaluation mode."""
    predictions, labels = _predicted(model, on.train, numerics, batch_size), on.train.labels.cpu()
    retained = _share(predictions == labels, ~on.forget)
    as_stored = _share(predictions == labels, on.forget)
    assert retained is not None
    assert as_stored is not None
    known = unknown = validation = None
    if on.true_labels is not None:
        # A row outside the list is bad where its true label is known and is another one.
        bad = (on.true_labels >= 0) & (on.true_labels != labels)
        known = _share(predictions == on.true_labels, bad & on.forget)
        unknown = _share(predictions == on.true_labels, bad & ~on.forget)
    right, classes = (predictions == labels)[~on.forget], labels[~on.forget]
    if on.validation is not None:
        classes = on.validation.labels.cpu()
        right = _predicted(model, on.validation, numerics, batch_size) == classes
        of_forgotten = torch.isin(classes, torch.tensor(on.forgotten_classes, dtype=torch.int64))
        validation = _share(right, ~of_forgotten)
    per_class = tuple(_share(right, classes == label) for label in range(on.train.n_classes))
    return Measured(retained, as_stored, validation, known, unknown, per_class, predictions)


@dataclass(frozen=True)
class Damage:
    """A class, its accuracy before and after, and the difference: above 0 it lost."""

    name: str
    before: Share
    after: Share

    @property
    def loss(self) -> float:
        """Accuracy before minus accuracy after, in [-1, 1]."""
        return self.before.value - self.after.value


def damages(
    before: Measured, after: Measured, classes: Sequence[str], forgotten: Sequence[int] = ()
) -> list[Damage]:
    """Return every class that stays and can be measured, the largest loss first."""
    pairs = zip(classes, before.per_class, after.per_class, strict=True)
    found = [
        Damage(name, first, second)
        for label, (name, first, second) in enumerate(pairs)
        if first is not None and second is not None and label not in forgotten
    ]
    return sorted(found, key=lambda damage: -damage.loss)


def _predicted(model: nn.Module, examples: Examples, numerics: Numerics, batch_size: int) -> Tensor:
    logits = predict(model, examples, numerics, batch_size).cpu()
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


def _share(right: Tensor, among: Tensor) -> Share | None:
    count = int(among.sum())
    return Share(int((right & among).sum()), count) if count else None
