"""Which models a population consists of: what each is trained on, what it unlearns, and its seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.fingerprint import fingerprint
from expunge.methods.base import Method
from expunge.seeding import derive_seed, generator
from expunge.tasks.base import Problem
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

KEY_VERSION = 1
"""Enters every key; raised when the same settings come to mean something else."""
FEWEST = 8
"""Models below which no interval can be estimated from groups of them."""


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
