"""How the models of a population answer every example, kept under content hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import Diverged
from expunge.metrics.attack_scores import confidence, logit_gap
from expunge.store.weights import WeightStore
from expunge.tasks.base import Problem
from expunge.training.loop import predict
from expunge.training.numerics import Numerics


@dataclass(frozen=True, eq=False)
class Scores:
    """Answers of M models to the E = N + T training and test examples, in this order.

    Training examples are scored against their given labels, test examples against theirs.

    Args:
        margins: float32 (M, E), phi = log p_y - log sum_{j != y} p_j.
        confidences: float32 (M, E), p_y.
        right: bool (M, E), whether the largest logit is at the label.
    """

    margins: Tensor
    confidences: Tensor
    right: Tensor

    @classmethod
    def of(cls, model: nn.Module, problem: Problem, numerics: Numerics) -> Scores:
        """Return the scores (1, E) of one model, in evaluation mode.

        Raises:
            Diverged: the model has logits that are not finite.
        """
        parts = [
            _answers(model, part, numerics) for part in (problem.split.train, problem.truth.sets["test"])
        ]
        return cls(*(torch.cat(columns)[None] for columns in zip(*parts, strict=True)))

    @classmethod
    def load(cls, store: WeightStore, keys: Sequence[str]) -> Scores:
        """Return the stored scores of several models, one row each; raises StoreError where one cannot be read."""
        rows = [store.load(key) for key in keys]
        return cls(**{entry.name: torch.cat([row[entry.name] for row in rows]) for entry in fields(cls)})

    def save(self, store: WeightStore, key: str) -> None:
        """Store the scores of one model under a content hash."""
        store.save(key, vars(self), {"content": "population scores"})

    def __len__(self) -> int:
        return len(self.margins)

    def models(self, chosen: Tensor) -> Scores:
        """Return the scores of some of the models."""
        return Scores(self.margins[chosen], self.confidences[chosen], self.right[chosen])


def _answers(model: nn.Module, examples: Examples, numerics: Numerics) -> tuple[Tensor, Tensor, Tensor]:
    logits, labels = predict(model, examples, numerics).cpu(), examples.labels.cpu()
    if not bool(logits.isfinite().all()):
        raise Diverged("a model of the population has logits that are not finite; lower the learning rate")
    right = logits.argmax(1) == labels
    return logit_gap(logits, labels).float(), confidence(logits, labels).float(), right
