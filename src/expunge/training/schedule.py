"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from expunge.errors import UnknownName

Schedule = Callable[[int, int], float]
"""``(step, steps) -> factor`` on the learning rate; steps count from 0."""


def constant(step: int, steps: int) -> float:
    """The factor 1."""
    return 1.0


def warmup_decay(step: int, steps: int) -> float:
    """Linear rise over the first hundredth, then linear decay towards a fifth.

    With w = floor(T / 100): (s + 1) / (w + 1) for s < w, else 1 - (s - w) / (1.25 T).

    Symbols: s -> ``step``, T -> ``steps``.

    Source: the schedule of the corrective-unlearning benchmark (Goel et al., 2024).
    """
    warm = steps // 100
    if step < warm:
        return (step + 1) / (warm + 1)
    return 1 - (step - warm) / (1.25 * steps)


def cosine(step: int, steps: int) -> float:
    """Half a cosine from just below 1 to 0: the last step has rate 0.

    (1 + cos(pi (s + 1) / T)) / 2.

    Symbols: s -> ``step``, T -> ``steps``.

    Source: the fine-tuning schedule of NatMU (He et al., 2025).
    """
    return (1 + math.cos(math.pi * (step + 1) / steps)) / 2


SCHEDULES: dict[str, Schedule] = {"constant": constant, "warmup_decay": warmup_decay, "cosine": cosine}


def schedule_named(name: str) -> Schedule:
    """Return the schedule of that name, or raise :class:`UnknownName`."""
    if name not in SCHEDULES:
        raise UnknownName(f"unknown schedule {name!r:.100} (known: {', '.join(SCHEDULES)})")
    return SCHEDULES[name]
