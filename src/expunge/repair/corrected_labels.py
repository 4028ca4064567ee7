"""The true labels of bad rows, as far as they are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.errors import DataError, near_miss
from expunge.repair.forget_files import NAME_COLUMNS, POSITION_COLUMNS
from expunge.repair.forget_list import rows_named
from expunge.repair.specification import Specification
from expunge.repair.training_data import TrainingData

UNKNOWN = -1
LABEL_COLUMNS = ("true_label", "clean_label", "corrected_label", "correct_label")


@dataclass(frozen=True)
class CorrectedLabels:
    """True labels.

    Args:
        labels: int64 (N,), :data:`UNKNOWN` where the true label of a row is not known.
        source: where they were read from.
    """

    labels: Tensor
    source: str

    def known_among(self, positions: Tensor) -> Tensor:
        """Return those of ``positions`` whose true label is known."""
        return positions[self.labels[positions] != UNKNOWN]


def read_corrected_labels(text: str, data: TrainingData) -> CorrectedLabels:
    """Return the true labels that ``text`` names.

    - ``FILE.csv`` or ``.tsv``: a column of rows (``index``, ``name``, ...) and one of labels (``true_label``,
      ``clean_label``, ``corrected_label``, ``correct_label``, or ``?column=NAME``). Without a column of rows
      there must be a line for each row of the data. An empty label is one that is not known.
    - ``FILE.json``: an object, row or name -> label, or a list of one label per row.
    - ``column:NAME``: a column of the data.

    A label is the name of a class, or its number.

    Raises:
        DataError: an unreadable file, rows or classes that are not those of the data, or no label at all.
    """
    if text.startswith("column:"):
        name = text.removeprefix("column:")
        if name not in data.columns:
            raise DataError(f"the data has no column {name!r}{near_miss(name, data.columns)}")
        rows, found = None, list(data.columns[name])
    else:
        rows, found = _read(text, data)
    if rows is None:
        if len(found) != len(data):
            raise DataError(
                f"{text} holds {len(found)} labels, but the data has {len(data)} rows; name the row of each label in "
                f"a column ({', '.join(POSITION_COLUMNS[:1] + NAME_COLUMNS[:1])})"
            )
        rows = torch.arange(len(data))
    labels = torch.full((len(data),), UNKNOWN)
    number = {str(label): label for label in range(len(data.classes))}
    number |= {name: label for label, name in enumerate(data.classes)}
    for row, value in zip(rows.tolist(), found, strict=True):
        if _is_empty(value):
            continue
        key = str(int(value)) if isinstance(value, float) and value == int(value) else str(value)
        if key not in number:
            raise DataError(
                f"{text}: the true label of {data.name(row)} is {value!r}, which is none of the classes "
                f"{', '.join(data.classes)}{near_miss(str(value), data.classes)}; correct it"
            )
        labels[row] = number[key]
    if not bool((labels != UNKNOWN).any()):
        raise DataError(f"{text} holds no true label; fill in the labels that are known")
    return CorrectedLabels(labels, text)


def _read(text: str, data: TrainingData) -> tuple[Tensor | None, list[Any]]:
    specification = Specification.parse(text)
    path = Path(specification.target).expanduser()
    column = specification.settings.get("column")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; expected a .csv, .tsv or .json of labels"
        ) from error
    if path.suffix == ".json":
        return _from_json(path, content, data)
    if path.suffix not in (".csv", ".tsv"):
        raise DataError(f"{path}: true labels are a .csv, .tsv or .json file, or column:NAME of the data")
    lines = list(csv.DictReader(content.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ","))
    header = list(lines[0]) if lines else []
    chosen = column or next((name for name in LABEL_COLUMNS if name in header), None)
    if chosen not in header:
        raise DataError(
            f"{path}: no column of true labels; it has {', '.join(header) or 'none'}. Call it {LABEL_COLUMNS[0]}, or "
            f"name it: {path.name}?column=NAME"
        )
    found = [line[chosen] for line in lines]
    keyed = next((name for name in ("", *POSITION_COLUMNS, *NAME_COLUMNS) if name in header), None)
    return (None if keyed is None else _rows(text, [line[keyed] for line in lines], data)), found


def _from_json(path: Path, content: str, data: TrainingData) -> tuple[Tensor | None, list[Any]]:
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON: {error}; it may be truncated, write it again") from error
    if isinstance(found, Mapping):
        return _rows(str(path), list(found), data), list(found.values())
    if isinstance(found, list):
        return None, found
    raise DataError(f"{path}: expected an object, row -> label, or a list of one label per row")


def _rows(text: str, keys: Sequence[str], data: TrainingData) -> Tensor:
    try:
        numbers = torch.tensor([int(key) for key in keys], dtype=torch.int64)
    except ValueError:
        return rows_named(text, keys, data)
    outside = numbers[(numbers < 0) | (numbers >= len(data))]
    if len(outside):
        raise DataError(f"{text}: row {int(outside[0])} is not in the data, which has {len(data)} rows")
    if len(set(numbers.tolist())) < len(numbers):
        raise DataError(f"{text} names a row more than once; give each row one true label")
    return numbers


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value != value
