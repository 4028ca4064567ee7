"""What a check of the user's model and data found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
"""An error stops the repair; a warning puts its result in doubt; a note is to be known."""


@dataclass(frozen=True)
class Remark:
    """One thing found.

    Args:
        level: "error", "warning" or "note".
        where: the layer, file or part it was found in.
        what: what was found, with numbers.
        remedy: what to do; empty where there is nothing to do.
    """

    level: Level
    where: str
    what: str
    remedy: str = ""


def first_few(names: list[str], count: int = 3) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def ranked(findings: list[Remark]) -> list[Remark]:
    """Return errors first, then warnings, then notes; otherwise in their order."""
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.level))
