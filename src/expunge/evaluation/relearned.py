"""Relearning with its cap in view: how many steps, and how far it came."""

from __future__ import annotations

from dataclasses import dataclass, field

from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined, Value
from expunge.metrics.relearn import Relearning, RelearnTime
from expunge.training.recipe import Optimiser

SLOW = Relearning(optimiser=Optimiser(lr=0.003, momentum=0.0, weight_decay=0.0), max_steps=200)
"""Plain descent in small steps: with momentum a forgotten class is back after five, which resolves nothing."""


REACHED = "relearn_reached"
"""Name of the accuracy, in [0, 1], that was reached."""


@dataclass(frozen=True, kw_only=True)
class Relearned(Metric):
    """Steps of training on D_f until its accuracy is within alpha of the original model's, of a copy.

    "relearn_reached" is the accuracy at which the training stopped: at the aim, or at the cap, where the number of
    steps is not defined.

    Args:
        relearn_time: how the time is taken.

    Source: Chundawat et al., IEEE TIFS 2023, arXiv 2201.05629.
    """

    name = "relearn_time"
    unit = "steps"
    better = "reference"
    compares = Compares.ORIGINAL
    source = "Chundawat et al., IEEE TIFS 2023"

    relearn_time: RelearnTime = field(default_factory=lambda: RelearnTime(relearning=SLOW))

    @property
    def cap(self) -> int:
        """The number of steps at which the training ends at the latest."""
        return self.relearn_time.relearning.max_steps

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the steps; not defined where the cap comes first."""
        return self.relearn_time(evaluated)

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """The steps, and the accuracy reached."""
        target = self.relearn_time.target(evaluated)
        curve = self.relearn_time.curve(evaluated, until=target)
        steps = curve.reached(target)
        reason = f"an accuracy of {target:.3f} is not regained within {self.cap} steps"
        return {
            self.name: NotDefined(reason) if steps is None else Value(steps),
            REACHED: Value(curve.accuracies[-1]),
        }
