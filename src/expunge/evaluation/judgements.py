"""What a rule of the verdict finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal[
    "little to repair",
    "damaged utility",
    "did not forget",
    "partly forgot",
    "hidden, not forgotten",
    "partly healed",
    "lost some utility",
    "over-forgot",
    "undecided",
    "forgot",
]


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Args:
        outcome: in words.
        sentence: with the numbers it rests on.
        numbers: the same by name.
    """

    outcome: Outcome
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def points(share: float) -> str:
    """Return a difference of shares in percentage points."""
    return f"{100 * share:.1f} points"
