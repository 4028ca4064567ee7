"""What a method says of itself: needs, source, expected work; for lists, cards and advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from expunge.errors import ExpungeError
from expunge.registry import METHODS

NEEDS = {
    "forget": "the examples to be forgotten",
    "retain": "the remaining training data",
    "recipe": "how the original model was trained",
    "truth": "the truth about the data, which nobody has outside an experiment",
    "classes": "whole classes to be forgotten",
    "codes": "a model trained with mnemonic codes",
    "unseen": "data that the model has not seen",
}
"""What a method may read -> the same in words."""


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """A method as its class declares it.

    Args:
        name: in the table of methods.
        summary: first line of its docstring.
        needs: what it reads: "forget", "retain", "recipe", ...
        touches: which parameters it changes.
        year: of its paper; empty where there is none.
        source: authors, title, year and place of its paper; empty likewise.
        oracle: whether it sees what nobody knows outside an experiment.
        preparation: how the original model must have been trained for it; empty for nothing.
        retraining_share: epochs over the training set as a share of a retraining's, at default settings.
    """

    name: str
    summary: str
    needs: tuple[str, ...]
    touches: str
    year: str = ""
    source: str = ""
    oracle: bool = False
    preparation: str = ""
    retraining_share: float

    @property
    def cost(self) -> str:
        """The share in words: "none", "under 1 %", "30 %"."""
        if self.touches == "nothing":
            return "none"
        return "under 1 %" if self.retraining_share < 0.01 else f"{100 * self.retraining_share:.0f} %"


def method_facts(name: str) -> MethodFacts | None:
    """Return the facts of a method, or None for one that is not installed here; loads its module."""
    try:
        kind: Any = METHODS.get(name)
        made = kind()
        share = made.typical_epochs(None) / METHODS.get("retrain")().typical_epochs(None)
    except (ExpungeError, TypeError):  # a third party's, of another installation or without defaults
        return None
    source = kind.reference
    return MethodFacts(
        name=name,
        summary=(kind.__doc__ or "").strip().partition("\n")[0],
        needs=tuple(str(kind.needs).split(", ")) if kind.needs else (),
        touches=kind.touches,
        year=str(source.year) if source else "",
        source=f"{source.authors}: {source.title} ({source.year}), {source.where}" if source else "",
        oracle=made.oracle,
        preparation=kind.preparation,
        retraining_share=share,
    )


def installed() -> list[MethodFacts]:
    """Return the facts of every method in the table, in its order."""
    return [found for name in METHODS.names() if (found := method_facts(name)) is not None]


def markdown_table() -> str:
    """Return every method as a Markdown table."""
    lines = ["| name | what it does | year | needs | cost |", "|---|---|---|---|---|"]
    for found in installed():
        name = f"`{found.name}`{'*' if found.preparation else ''}"
        cells = (name, found.summary.rstrip("."), found.year, ", ".join(found.needs) or "nothing", found.cost)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
