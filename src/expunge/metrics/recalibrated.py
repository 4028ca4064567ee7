"""Other metrics once the normalisation statistics are those of the retain set."""

from __future__ import annotations

from expunge.metrics.accuracies import Accuracies
from expunge.metrics.base import Evaluated, Metric, NotDefined, Value, measure
from expunge.metrics.corruption import AttackSuccess, Healed, Utility

ENDING = "_recalibrated"
"""What the name of such a number ends in."""


class Recalibrated(Metric):
    """What other metrics measure of the model with batch-norm statistics of the retain set in place of its own.

    Passes over the forget set alone shift the running statistics. That can change the answers where the weights have
    forgotten nothing, and is undone by passes over other data, without a gradient. What a number loses from the model
    as returned to the recalibrated one is hidden by normalisation statistics, not forgotten.

    Args:
        metrics: what is measured; by default utility, healing, attack success and the accuracies of a forgetting task,
            as far as the task has them.
    """

    name = "recalibrated"
    better = "reference"

    def __init__(self, *metrics: Metric) -> None:
        self.metrics = metrics or (Utility(), Healed(), AttackSuccess(), Accuracies())

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the first metric's value."""
        return self.metrics[0](evaluated.recalibrated)

    def values(self, evaluated: Evaluated) -> dict[str, Value | NotDefined]:
        """Name of the number + "_recalibrated" -> number, for all metrics; not defined without batch normalisation."""
        return {
            entry.name + ENDING: NotDefined(entry.because)
            if entry.value is None
            else Value(entry.value, entry.low, entry.high)
            for metric in self.metrics
            for entry in measure(metric, evaluated.recalibrated)
        }
