"""Nearest class mean on the features: whether a class that is no longer answered is still known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, Metric
from expunge.metrics.undefined import undefined_where_invalid
from expunge.training.features import features, layer_features
from expunge.training.numerics import Numerics


def class_mean_probe(
    model: nn.Module,
    train: Examples,
    test: Examples,
    numerics: Numerics,
    per_class: int = 100,
    layer: str | None = None,
) -> float:
    """Return the accuracy on ``test``, in [0, 1], of the nearest class mean on what enters the head.

    A mean is that of a class's first ``per_class`` training images, every class included, the forgotten
    ones too; distance is Euclidean. The head takes no part: a mask of the logits changes nothing here, and
    a value near that before unlearning says that the features still hold the class.

    Args:
        model: ends in a linear layer with one output per class.
        train: training examples with true labels; a class without any is never answered.
        test: examples with true labels, for instance those of the forgotten class; none may be in ``train``.
        numerics: where to compute.
        per_class: at most this many training examples a class.
        layer: probe what this layer puts out instead; a name as in ``model.named_modules()``.

    Raises:
        InvalidInput: no example, ``per_class`` below one, or a model without such a layer.
    """
    chosen = few_of_each_class(train, test, per_class)

    def inner(examples: Examples) -> Tensor:
        if layer is None:
            return features(model, examples, numerics)
        return layer_features(model, examples, numerics, [layer])[layer]

    return nearest_mean_accuracy(inner(chosen), chosen.labels, inner(test), test.labels)


def few_of_each_class(train: Examples, test: Examples, per_class: int) -> Examples:
    """Return the first ``per_class`` examples of each class in ``train``, to fit a probe for ``test``.

    Raises:
        InvalidInput: no training or test example, or ``per_class`` below one.
    """
    if len(train) == 0 or len(test) == 0 or per_class < 1:
        raise InvalidInput(
            "the probe needs training and test examples and at least one a class, got "
            f"{len(train)}, {len(test)} and per_class {per_class}"
        )
    present = torch.bincount(train.labels).nonzero().flatten()
    chosen = [(train.labels == label).nonzero().flatten()[:per_class] for label in present]
    return train.select(torch.cat(chosen))


def nearest_mean_accuracy(known: Tensor, labels: Tensor, asked: Tensor, answers: Tensor) -> float:
    """Accuracy, in [0, 1], of the class whose mean feature is nearest in L2.

    Args:
        known: features (K, D) that make the means.
        labels: int64 (K,), their classes.
        asked: features (N, D).
        answers: int64 (N,), their classes.
    """
    present = torch.bincount(labels).nonzero().flatten()
    means = torch.stack([known[labels == label].mean(0) for label in present])
    nearest = present[torch.cdist(asked, means).argmin(1)]
    return float((nearest == answers).cpu().double().mean())


class ClassMeanProbe(Metric):
    """Accuracy of the nearest class mean on test images of a forgotten class, from what enters the head.

    Closer to the retrained model's value is better: a mask of the logits leaves it where it was.
    """

    name = "class_mean_probe"
    better = "reference"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the accuracy; not defined where no class is forgotten or the model has no linear head."""
        train, test = evaluated.problem.split.train, evaluated.examples("forget_test")
        with undefined_where_invalid():
            return class_mean_probe(evaluated.model, train, test, evaluated.numerics)
