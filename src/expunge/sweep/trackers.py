"""Finished cells as runs of an experiment tracker; the store stays the only record that counts."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from expunge.errors import ExpungeError, InvalidInput
from expunge.registry import Registry
from expunge.store.record import METRICS, Record
from expunge.tasks.regularity import regularity_name

COSTS = (
    "seconds",
    "sample_gradients",
    "peak_memory",
    "parameters_before",
    "parameters_during",
    "parameters_after",
)
_NO_PARAMETERS = {*METRICS, *COSTS, "metrics", "per_class", "log", "error"}


class Tracker(Protocol):
    """Gets every record of a sweep once, right after the store has it.

    A class is made as ``Class(target, folder)``: what follows its name in ``--log``, ``None`` if nothing
    does, and the folder of the sweep. It raises :class:`InvalidInput` where it cannot work.

    Attributes:
        place: where the runs go, for the screen.
    """

    place: str

    def log(self, record: Record) -> None:
        """Log one record as one run."""


TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": "expunge.sweep.lightning_trackers:TensorBoard",
        "mlflow": "expunge.sweep.lightning_trackers:MLflow",
        "wandb": "expunge.sweep.lightning_trackers:WeightsAndBiases",
    },
    "expunge.trackers",
)


def find_tracker(text: str) -> tuple[Callable[[str | None, Path], Tracker], str | None]:
    """Return the class and the target of what was asked for: ``NAME[:TARGET]`` or ``module:Class[:TARGET]``.

    Raises:
        UnknownName: no such name.
        InvalidInput: a path that leads nowhere, or an empty target.
    """
    head, colon, target = text.partition(":")
    if colon and head not in TRACKERS.names():
        attribute, colon, target = target.partition(":")
        head = f"{head}:{attribute}"
    if colon and not target:
        raise InvalidInput(f"tracker {text!r} has an empty target; leave out the last colon")
    return TRACKERS.get(head), target or None


def open_tracker(text: str, folder: Path) -> Tracker:
    """Make the tracker of a sweep in ``folder``; raise InvalidInput where it cannot be found or made, or is none."""
    make, target = find_tracker(text)
    try:
        tracker = make(target, folder)
    except ExpungeError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"tracker {text!r} cannot be opened ({_brief(error)}); see that its server answers and "
            "its target is right, or leave it out"
        ) from error
    if not (callable(getattr(tracker, "log", None)) and isinstance(getattr(tracker, "place", None), str)):
        raise InvalidInput(
            f"tracker {text!r} made a {type(tracker).__name__}; an object with log(record) and a "
            "string place was expected"
        )
    return tracker


class Trackers:
    """The trackers of one run; none of them can stop it.

    Args:
        texts: what was asked for; twice the same counts once.
        folder: folder of the sweep, below which they write unless told otherwise.
        warn: gets one message for each tracker that fails; it is left alone from then on.

    Attributes:
        logged: place -> number of runs that it got.

    Raises:
        InvalidInput: a tracker cannot be opened.
    """

    def __init__(self, texts: Iterable[str], folder: Path, warn: Callable[[str], None]) -> None:
        self._trackers = {text: open_tracker(text, folder) for text in dict.fromkeys(texts)}
        self._warn = warn
        self.logged = {tracker.place: 0 for tracker in self._trackers.values()}

    def log(self, record: Record) -> None:
        """Log a record to every tracker that still works."""
        for text, tracker in list(self._trackers.items()):
            try:
                tracker.log(record)
            except Exception as error:  # whatever it is, it must not cost the sweep
                del self._trackers[text]
                self._warn(
                    f"tracker {text!r} failed ({_brief(error)}); it gets no more runs of this sweep, the "
                    "store gets every record"
                )
            else:
                self.logged[tracker.place] += 1


def run_name(record: Record) -> str:
    """Return what a person recognises a cell by, and the start of its key."""
    where = record.task if record.regularity is None else regularity_name(record.regularity)
    known = "" if record.discovery is None else f"{record.discovery:.0%} known, "
    return f"{record.method}, {where}, {known}seed {record.seed}, {record.key[:8]}"


def parameters(record: Record) -> dict[str, Any]:
    """Return what was run, nested as in the record: settings, task, recipe, seeds, keys, provenance, status."""
    kept = {name: value for name, value in record.to_row().items() if name not in _NO_PARAMETERS}
    if record.error:
        kept["error"] = record.error.strip().splitlines()[-1]
    return {name: value for name, value in kept.items() if value not in (None, "", {})}


def results(record: Record) -> dict[str, float]:
    """Return the metrics and costs that are there; a cell without a result has ``failed`` = 1."""
    values = {**record.flat_metrics(), **{name: getattr(record, name) for name in (*METRICS, *COSTS)}}
    if record.status != "done":
        values["failed"] = 1.0
    return {name: value for name, value in values.items() if value is not None}


def _brief(error: Exception) -> str:
    """Return the kind of an error and the start of the first line of what it says."""
    said = textwrap.shorten(str(error).strip().partition("\n")[0], 200, placeholder=" ...")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
