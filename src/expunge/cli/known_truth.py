"""The truth about the training data, where a user has it: true labels, or a list of the bad rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from expunge.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.repair.training_data import TrainingData

_LABEL_COLUMNS = ("true_label", "clean_label")


@dataclass(frozen=True)
class KnownTruth:
    """What is known.

    Args:
        bad: bool (N,), the bad rows.
        labels: int64 (N,), the true labels, if those are known.
        note: how it was read, for the user.
    """

    bad: Tensor
    labels: Tensor | None
    note: str


def read_truth(text: str, data: TrainingData) -> KnownTruth:
    """Return the truth that ``text`` names: a file, or ``column:NAME`` of the data.

    One class (its name or number) for each row is a list of true labels: a bad row is one whose true label is
    not the stored one. Anything else is read as a list of the bad rows. Of a table the column ``true_label`` or
    ``clean_label`` is taken, if there is one; ``FILE.csv?column=NAME`` names another. A column of nothing
    but 0 and 1 marks bad rows, unless it has one of these two names.

    Raises:
        DataError: an unreadable file, or rows and classes that are not those of the data.
        InvalidInput: an empty list of rows, a row named twice or out of range, or every row.
    """
    from expunge.repair.forget_list import read_forget_list

    values = _values(text, data)
    labels = None if values is None else _as_labels(values, data)
    if labels is not None:
        bad = labels != data.examples.labels.cpu()
        return KnownTruth(bad, labels, f"read as true labels: {int(bad.sum())} differ from the stored ones")
    listed = read_forget_list(text, data)
    bad = torch.zeros(len(data), dtype=torch.bool)
    bad[listed.positions] = True
    return KnownTruth(bad, None, f"read as a list of {len(listed.positions)} bad rows, by {listed.form}")


def _values(text: str, data: TrainingData) -> Sequence[Any] | None:
    """What could be one label for each row; ``None`` where it can only be a list of rows."""
    from expunge.repair.forget_files import as_marks, read_list
    from expunge.repair.specification import Specification

    if text.startswith("column:"):
        name = text.removeprefix("column:")
        # A name the data does not have is told by the reader of lists.
        own = data.columns.get(name, ())
        return None if as_marks(own) is not None and name not in _LABEL_COLUMNS else own
    specification = Specification.parse(text)
    path = Path(specification.target).expanduser()
    column: str | None = specification.settings.get("column")
    if path.suffix in (".csv", ".tsv"):
        column = column or _label_column(path)
        if column is None:
            return None
    values = read_list(path, column, set(data.names)).values
    # Labels 0 and 1 of a table have been read as marks.
    return [int(value) for value in values] if column in _LABEL_COLUMNS and _booleans(values) else values


def _label_column(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","), [])
    except (OSError, UnicodeDecodeError):
        return None  # what is wrong with it is told by the reader of lists
    return next((name for name in _LABEL_COLUMNS if name in header), None)


def _booleans(values: Sequence[Any]) -> bool:
    return all(isinstance(value, bool) for value in values)


def _as_labels(values: Sequence[Any], data: TrainingData) -> Tensor | None:
    if len(values) != len(data) or _booleans(values):
        return None
    number = {str(label): label for label in range(len(data.classes))}
    number |= {name: label for label, name in enumerate(data.classes)}
    found = [number.get(str(value)) for value in values]
    known = [label for label in found if label is not None]
    if len(known) == len(values):
        return torch.tensor(known)
    # Most are classes: they were meant as labels, and the first that is none is a mistake.
    if len(known) > len(values) / 2:
        row = found.index(None)
        raise DataError(
            f"the true label of row {row} is {values[row]!r}, which is none of the classes "
            f"{', '.join(data.classes)}; correct it"
        )
    return None
