"""The models of a population: what each is trained on, what it unlearns, its seed, and how it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import Diverged, InvalidInput
from expunge.fingerprint import fingerprint
from expunge.methods.base import Method
from expunge.metrics.attack_scores import confidence, logit_gap
from expunge.seeding import derive_seed, generator
from expunge.store.weights import WeightStore
from expunge.tasks.base import Problem
from expunge.training.loop import predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

KEY_VERSION = 1
"""Enters every key; raised when the same settings come to mean something else."""
FEWEST = 8
"""Models of a population at least: an interval is estimated by leaving out each of so many groups of them."""


@dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """How many models, of what, on which part of the data.

    Args:
        recipe: how every model is trained.
        n_models: models in each population; the literature uses 64 to 512.
        share: of the forget set and of the retain set that each model of the halves is trained on, in (0, 1).
        seed: of the parts and of the models' own seeds.
        vulnerable: share of the forget set, the most memorised, that RULI attacks, in (0, 1].

    Raises:
        InvalidInput: a value outside its range.
    """

    recipe: Recipe
    n_models: int = 64
    share: float = 0.5
    seed: int = 0
    vulnerable: float = 0.1

    def __post_init__(self) -> None:
        if self.n_models < FEWEST:
            raise InvalidInput(
                f"a population needs at least {FEWEST} models, got {self.n_models}; 64 are customary"
            )
        if not 0 < self.share < 1 or not 0 < self.vulnerable <= 1:
            raise InvalidInput(
                "share must lie in (0, 1) and vulnerable in (0, 1], got "
                f"{self.share:g} and {self.vulnerable:g}"
            )


@dataclass(frozen=True, eq=False)
class Member:
    """One model.

    Args:
        key: content hash of all that its weights follow from.
        seed: of its first weights and of its order of examples.
        positions: int64 (n,), ascending: its training examples, as positions in the problem's training set.
        forget: int64 (f,), ascending: those of ``positions`` that it is to unlearn; none for a retrained model.
    """

    key: str
    seed: int
    positions: Tensor
    forget: Tensor

    def scores_key(self, method: Method | None) -> str:
        """Key of its scores, before (``None``) or after unlearning by ``method``."""
        # Two methods may share their settings; a class is told by where it is written.
        after = (
            () if method is None else (type(method).__module__, type(method).__qualname__, method.settings())
        )
        return fingerprint("population scores", self.key, self.forget if after else "", *after)


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


def draw_halves(problem: Problem, settings: PopulationSettings, numerics: Numerics) -> list[Member]:
    """Models of which each is trained on a random share of the data and unlearns what it has of the forget set.

    Each draws floor(share |D_f|) forget and floor(share |D_r|) retain examples, at least one, so all parts
    have one size. An example of D_f was trained on and unlearned by some models; to the others, which
    unlearned other examples, it was never shown.

    Raises:
        InvalidInput: a forget set of fewer than two examples.
    """
    forget, retain = _positions(problem)
    if len(forget) < 2 or len(retain) < 2:
        raise InvalidInput(
            "each model gets a part of the forget and of the retain set, so both need at least two examples; "
            f"got {len(forget)} and {len(retain)}"
        )
    parts = []
    for number in range(settings.n_models):
        source = generator(settings.seed, "population", "halves", number)
        named = _share(forget, settings.share, source)
        parts.append((torch.cat([named, _share(retain, settings.share, source)]).sort().values, named))
    return _members(problem, settings, numerics, "halves", parts)


def draw_whole(problem: Problem, settings: PopulationSettings, numerics: Numerics) -> list[Member]:
    """Models trained on everything, which unlearn the whole forget set; they differ by their seeds."""
    forget, _ = _positions(problem)
    everything = torch.arange(len(problem.split.train))
    return _members(problem, settings, numerics, "whole", [(everything, forget)] * settings.n_models)


def draw_retrained(problem: Problem, settings: PopulationSettings, numerics: Numerics) -> list[Member]:
    """Models trained on the retain set alone; they differ by their seeds."""
    forget, retain = _positions(problem)
    return _members(problem, settings, numerics, "retrained", [(retain, forget[:0])] * settings.n_models)


def inside(members: list[Member], positions: Tensor) -> Tensor:
    """Bool (M, E): which of the training positions each member was trained on."""
    return torch.stack([torch.isin(positions, member.positions) for member in members])


def _positions(problem: Problem) -> tuple[Tensor, Tensor]:
    mask = problem.split.forget_mask.cpu()
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()


def _share(positions: Tensor, share: float, source: torch.Generator) -> Tensor:
    count = min(max(1, int(share * len(positions) + 1e-9)), len(positions) - 1)
    return positions[torch.randperm(len(positions), generator=source)[:count]].sort().values


def _members(
    problem: Problem, settings: PopulationSettings, numerics: Numerics, role: str,
    parts: Sequence[tuple[Tensor, Tensor]],
) -> list[Member]:  # fmt: skip
    """The models of one population; ``parts`` holds what each is trained on and what it is to unlearn."""
    members = []
    for number, (positions, forget) in enumerate(parts):
        seed = derive_seed(settings.seed, "population", role, number)
        # Two tasks on the same data share the models that saw all of it.
        made_from = problem.training_key, settings.recipe, seed, positions, numerics.dtype
        key = fingerprint("population member", KEY_VERSION, *made_from)
        members.append(Member(key, seed, positions, forget))
    return members
