"""The trials of a study and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from expunge.training.loop import Progress


@dataclass(frozen=True)
class Trial:
    """One choice of the searched settings and what came of it.

    Args:
        number: from 0, in the order they were run; 0 is the untuned settings.
        settings: the searched settings.
        score: mean over tasks and tuning seeds; the lowest possible one for a failed trial.
        status: "done" or "failed".
        error: why it failed.
        seconds: of its unlearning and scoring.
        sample_gradients: of its unlearning; runs that failed are not counted.
    """

    number: int
    settings: dict[str, Any]
    score: float
    status: str
    error: str
    seconds: float
    sample_gradients: int


@dataclass(frozen=True)
class TuneStatus:
    """How far a study is: share of the work, what is being done, the trials so far."""

    share: float
    doing: str
    trials: tuple[Trial, ...] = ()


class Clock:
    """Adds up the work done and reports it."""

    def __init__(self, report: Callable[[TuneStatus], None], total: float) -> None:
        self._report, self._total, self._done = report, total, 0.0
        self.trials: tuple[Trial, ...] = ()

    def say(self, doing: str, part: float = 0.0) -> None:
        """Report ``doing`` with ``part`` of work beyond what is finished."""
        self._report(TuneStatus(min(1.0, (self._done + part) / self._total), doing, self.trials))

    def finish(self, work: float) -> None:
        """Count ``work`` as done."""
        self._done += work

    def within(self, doing: str, work: float) -> Progress:
        """Return a listener for one job of ``work``."""
        return lambda share: self.say(doing, share * work)
