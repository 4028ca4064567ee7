"""What a method says of itself: needs, source, expected work; for cards and advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from expunge.errors import ExpungeError
from expunge.registry import METHODS


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """A method as its class declares it.

    Args:
        name: in the table of methods.
        summary: first line of its docstring.
        needs: what it reads: "forget", "retain", "recipe", ...
        touches: which parameters it changes.
        source: authors, title, year and place of its paper; empty where there is none.
        oracle: whether it sees what nobody knows outside an experiment.
        preparation: how the original model must have been trained for it; empty for nothing.
        retraining_share: passes over the training set as a share of a retraining, at default settings.
    """

    name: str
    summary: str
    needs: tuple[str, ...]
    touches: str
    source: str
    oracle: bool
    preparation: str
    retraining_share: float


def method_facts(name: str) -> MethodFacts | None:
    """Return the facts of a method, or None for one that is not installed here; loads its module."""
    try:
        kind: Any = METHODS.get(name)
        made = kind()
        recipe_epochs = METHODS.get("retrain")().typical_epochs(None)
        share = made.typical_epochs(None) / recipe_epochs
    except (ExpungeError, TypeError):  # a third party's, of another installation or without defaults
        return None
    source = kind.reference
    return MethodFacts(
        name=name,
        summary=(kind.__doc__ or "").strip().partition("\n")[0],
        needs=tuple(str(kind.needs).split(", ")) if kind.needs else (),
        touches=kind.touches,
        source=f"{source.authors}: {source.title} ({source.year}), {source.where}" if source else "",
        oracle=made.oracle,
        preparation=kind.preparation,
        retraining_share=share,
    )
