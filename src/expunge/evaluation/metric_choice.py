"""The metrics a grid names beside the default ones, and the models that they need."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.errors import InvalidInput
from expunge.evaluation.retrained import ORACLE, RETRAINED, SECOND
from expunge.metrics.base import Compares, Metric
from expunge.registry import METRICS


def load_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics of these names, with their default settings.

    Raises:
        UnknownName: no such metric.
        InvalidInput: one that a sweep cannot measure.
    """
    return tuple(map(_load, names))


def _load(name: str) -> Metric:
    made: type[Metric] = METRICS.get(name)
    try:
        return made()
    except TypeError as error:
        raise InvalidInput(
            f"metric {name!r} cannot be made without settings ({error}), and a grid gives none; leave it out"
        ) from error


def compared(metric: Metric, *, corrupted: bool) -> Compares:
    """Return the models without which the value of a metric says nothing.

    These are the models that it reads, and where the aim is a reference's value, that reference: the retrained
    model and, where data was corrupted, the oracle.
    """
    found = metric.compares
    if metric.needs_population:
        return found  # the retrained models are those of its own population
    if metric.better == "reference":
        found |= Compares.RETRAINED | (Compares.ORACLE if corrupted else Compares.NOTHING)
    return found


def references_of(metrics: Sequence[Metric], *, corrupted: bool) -> tuple[str, ...]:
    """Return the roles of the models to be trained for these metrics; the original is there anyway.

    A second retrained model comes with the first: how far two retrainings lie apart is the floor of every gap.
    """
    found = Compares.NOTHING
    for metric in metrics:
        found |= compared(metric, corrupted=corrupted)
    roles: tuple[str, ...] = (RETRAINED, SECOND) if Compares.RETRAINED in found else ()
    return (*roles, ORACLE) if Compares.ORACLE in found else roles
