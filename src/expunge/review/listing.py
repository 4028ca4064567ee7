"""The list of suspects and the data it is about, as ``expunge find`` wrote and read them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from expunge.errors import DataError, InvalidInput, StoreError
from expunge.inputs.sources import load_training_data
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.store.spreadsheet import from_text

KNOWN = "known"


@dataclass(frozen=True)
class Suspect:
    """A row of the list.

    Attributes:
        index: position in the data.
        name: what the row is called; empty where it has no name.
        given: number of the given label.
        suggested: number of the suggested one; ``None`` without.
        score: higher is more suspicious.
        detector: who named it.
        nearest: retained rows that are like it.
    """

    index: int
    name: str
    given: int
    suggested: int | None
    score: float
    detector: str
    nearest: tuple[int, ...]

    @property
    def known(self) -> bool:
        """Whether it was known to be bad before."""
        return KNOWN in self.detector.split("+")


def read_summary(path: Path) -> Mapping[str, Any]:
    """Return what ``expunge find`` wrote beside the list.

    Raises:
        StoreError: it is missing or no summary.
    """
    file = path.with_suffix(".json")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found["settings"]["data"], str) or not isinstance(found["reading"], dict):
            raise TypeError("settings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file}, which says how the data of {path.name} is read, cannot be used ({type(error).__name__}: "
            f"{error}); keep it beside the list, or run 'expunge find' again"
        ) from error
    return dict(found)


def load_data(summary: Mapping[str, Any], data: str | None = None) -> TrainingData:
    """Return the data of the list, from ``data`` if it has moved, read as ``expunge find`` read it.

    Raises:
        DataError: it cannot be read, or has another number of rows.
    """
    known = {entry.name for entry in fields(DataOptions)}
    read = {name: value for name, value in summary["reading"].items() if name in known and value is not None}
    read = {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
    if "root" in read:
        read["root"] = Path(read["root"])
    found = load_training_data(data or summary["settings"]["data"], DataOptions(**read, device="cpu"))
    if len(found) != summary["n_examples"]:
        raise DataError(
            f"the list was made from {summary['n_examples']:,} rows and the data has {len(found):,}; give the data of "
            "then with --data"
        )
    return found


def read_suspects(path: Path, data: TrainingData) -> list[Suspect]:
    """Return the rows of the list, in its order.

    Raises:
        StoreError: no such file.
        DataError: it is no list of ``expunge find``, or one for other data.
        InvalidInput: it is empty.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}; 'expunge find' writes such a list") from error
    numbers = {name: number for number, name in enumerate(data.classes)}
    found = []
    for number, line in enumerate(lines, 2):
        try:
            given = numbers[from_text(line["given_label"])]
            suggested = from_text(line.get("suggested_label") or "")
            suspect = Suspect(
                int(line["index"]), from_text(line.get("name") or ""), given, numbers.get(suggested),
                float(line["score"]), line["detector"], tuple(map(int, (line.get("nearest") or "").split())),
            )  # fmt: skip
            if not math.isfinite(suspect.score):  # no JSON holds it, and the page reads JSON
                raise ValueError(f"the score is {suspect.score}")
            stored = int(data.examples.labels[suspect.index])
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise DataError(
                f"{path}, line {number} is no line of a list of 'expunge find' for this data "
                f"({type(error).__name__}: {error})"
            ) from error
        if stored != given:
            raise DataError(
                f"{path} was made for other labels: row {suspect.index} is {data.classes[given]} there and "
                f"{data.classes[stored]} in the data"
            )
        found.append(suspect)
    if not found:
        raise InvalidInput(f"{path} lists no row: nothing is suspected, so there is nothing to look at")
    return found
