"""Probes of the layers: whether a class that is no longer answered is still known inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, Metric, Value
from expunge.training.features import features, layer_features, layer_names
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
        return class_mean_probe(evaluated.model, train, test, evaluated.numerics)


def linear_probe_accuracy(known: Tensor, labels: Tensor, asked: Tensor, answers: Tensor) -> float:
    """Accuracy, in [0, 1], of a logistic regression fitted on ``known`` features.

    Features are scaled to mean 0 and standard deviation 1; L2 penalty with C = 1, no held-out part. Arguments are those
    of :func:`nearest_mean_accuracy`.

    Raises:
        InvalidInput: one class only, no example, or features that are not finite.
    """
    from sklearn.linear_model import LogisticRegression  # sklearn takes seconds to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_classes = len(set(labels.tolist()))
    if len(asked) == 0 or n_classes < 2:
        raise InvalidInput(
            "a linear probe needs examples of two classes at least to fit and one example to answer, got "
            f"{n_classes} classes and {len(asked)} examples"
        )
    if not bool(known.isfinite().all() and asked.isfinite().all()):
        raise InvalidInput("the features hold NaN or inf; the model has diverged, lower its learning rate")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    probe.fit(known.cpu().double().numpy(), labels.cpu().numpy())
    predicted = probe.predict(asked.cpu().double().numpy())
    return float((predicted == answers.cpu().numpy()).mean())


def probe_layers(
    model: nn.Module,
    train: Examples,
    test: Examples,
    numerics: Numerics,
    *,
    layers: Sequence[str] = (),
    per_class: int = 100,
) -> dict[str, tuple[float, float]]:
    """Return layer -> accuracy on ``test`` of (linear probe, nearest class mean), both in [0, 1].

    Arguments are those of :func:`class_mean_probe`; no ``layers``: every part of the model before the head.

    Raises:
        InvalidInput: no example, one class only, ``per_class`` below one, or no such layer.
    """
    chosen = few_of_each_class(train, test, per_class)
    names = list(layers) or layer_names(model, train.n_classes)
    known = layer_features(model, chosen, numerics, names)
    asked = layer_features(model, test, numerics, names)
    return {
        name: (
            linear_probe_accuracy(known[name], chosen.labels, asked[name], test.labels),
            nearest_mean_accuracy(known[name], chosen.labels, asked[name], test.labels),
        )
        for name in names
    }


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Metric):
    """Accuracy of linear probes on test images of a forgotten class, layer by layer.

    The value is that of the last layer before the head; "linear_probe_" + layer and "nearest_mean_" + layer
    follow for every layer. Only the distance to the retrained model's value says something: a network that never saw a
    class has features that tell it apart, too.

    Args:
        layers: names as in ``model.named_modules()``; none: every part of the model before the head.
        per_class: at most this many training examples a class.
    """

    name = "linear_probe"
    better = "reference"
    source = "Alain and Bengio, ICLR 2017 workshop"

    layers: tuple[str, ...] = ()
    per_class: int = 100

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """Accuracies by layer; not defined where no class is forgotten or the model has no linear head."""
        train, test = evaluated.problem.split.train, evaluated.examples("forget_test")
        found = probe_layers(
            evaluated.model,
            train,
            test,
            evaluated.numerics,
            layers=self.layers,
            per_class=self.per_class,
        )
        last = list(found)[-1]
        values = {self.name: Value(found[last][0])}
        for layer, (linear, mean) in found.items():
            values[f"{self.name}_{layer}"] = Value(linear)
            values[f"nearest_mean_{layer}"] = Value(mean)
        return values
