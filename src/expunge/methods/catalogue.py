"""What each method is, needs, touches and costs, read from the methods themselves."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.methods.base import Method
from expunge.registry import METHODS
from expunge.training.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue, as text.

    Args:
        name: in the table of methods.
        summary: first line of the docstring.
        year: of its source; empty where there is none.
        needs: what it reads.
        touches: which parameters it changes.
        cost: passes over the training set as a share of one retraining.
        preparation: what the first training must have done for it.
    """

    name: str
    summary: str
    year: str
    needs: str
    touches: str
    cost: str
    preparation: str


def entry(name: str) -> Entry:
    """Return the catalogue's line for a method with its default settings."""
    kind: type[Method] = METHODS.get(name)
    recipe = Recipe()
    share = kind().typical_epochs(recipe) / recipe.epochs
    cost = "none" if kind.touches == "nothing" else "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"
    return Entry(
        name,
        METHODS.summary(name).rstrip("."),
        str(kind.reference.year) if kind.reference else "",
        str(kind.needs),
        kind.touches,
        cost,
        kind.preparation,
    )


def markdown_table() -> str:
    """Return every method as a Markdown table."""
    lines = ["| name | what it does | year | needs | cost |", "|---|---|---|---|---|"]
    for name in METHODS.names():
        found = entry(name)
        mark = "*" if found.preparation else ""
        lines.append(f"| `{name}`{mark} | {found.summary} | {found.year} | {found.needs} | {found.cost} |")
    return "\n".join(lines)
