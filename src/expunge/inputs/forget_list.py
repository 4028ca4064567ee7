"""Which rows of the training data are bad: read from a list the user brings, and matched with the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.errors import DataError, first_few, near_miss
from expunge.inputs.forget_files import Listed, as_marks, file_and_column, read_list
from expunge.inputs.row_keys import rows_of
from expunge.inputs.training_data import TrainingData, match_classes
from expunge.tasks.base import check_forget


@dataclass(frozen=True)
class ForgetList:
    """The rows to be forgotten.

    Args:
        positions: int64 (F,), sorted positions in the training data.
        source: where they were read from.
        form: how they were named: "positions", "names" or "marks" (a boolean per row).
        per_class: class name -> number of rows of that given label, for classes with any.
        notes: what was decided in reading, for the user.
    """

    positions: Tensor
    source: str
    form: str
    per_class: dict[str, int]
    notes: tuple[str, ...] = ()


def read_forget_list(text: str, data: TrainingData) -> ForgetList:
    """Return the rows that ``text`` names.

    - ``FILE.txt``: a position or a name a line; ``#`` starts a comment.
    - ``FILE.csv`` or ``.tsv``: one column of positions or names, or of marks, one per row. cleanlab's
      issue table is read by its ``is_label_issue``; its given labels must be those of the data.
      ``FILE.csv?column=NAME`` names the column.
    - ``FILE.json``: a list of positions, names or booleans, or an object with one such list.
    - ``FILE.npy``: integers, booleans (N,), or strings.
    - ``column:NAME``: a column of the data itself that is true where a row is bad.

    Positions count from 0. A name is a file relative to the folder of the data, or its end if no other
    row's name ends so.

    Raises:
        DataError: an unreadable list, unknown or ambiguous names, a mark for another number of rows, labels
            that are not those of the data.
        InvalidInput: an empty list, a row named twice, out of range, or all rows.
    """
    if text.startswith("column:"):
        listed = _own_column(text.removeprefix("column:"), data)
    else:
        listed = read_list(*file_and_column(text), data.row_names)
    form, positions = _positions(text, listed.values, listed.title, data)
    _check_labels(text, listed, data)
    found = check_forget(positions, len(data))
    labels = data.examples.labels.cpu()[found].tolist()
    per_class = {data.classes[label]: count for label, count in sorted(Counter(labels).items())}
    return ForgetList(found, text, form, per_class, listed.notes)


def _own_column(name: str, data: TrainingData) -> Listed:
    if name not in data.columns:
        has = first_few(list(data.columns), 8) or "none beside inputs and labels"
        raise DataError(f"the data has no column {name!r}{near_miss(name, data.columns)}; it has {has}")
    values = data.columns[name]
    marks = as_marks(values)
    if marks is None:
        odd = next(value for value in values if as_marks([value]) is None)
        raise DataError(
            f"column {name!r} of the data holds {odd!r}, expected true or false in every row; make a column that "
            "is true where a row is bad"
        )
    return Listed(marks)


def _positions(text: str, values: Sequence[Any], title: str, data: TrainingData) -> tuple[str, Tensor]:
    if values and all(isinstance(value, bool) for value in values):
        if len(values) != len(data):
            raise DataError(
                f"{text} marks {len(values)} rows, but the data has {len(data)}; give one mark per row, in the "
                "order of the training data"
            )
        if not any(values):
            raise DataError(
                f"{text} marks no row, so there is nothing to take out; to look for bad rows is the work of "
                "'expunge find'"
            )
        return "marks", torch.tensor(values)
    return rows_of(text, values, data, title)


def _check_labels(text: str, listed: Listed, data: TrainingData) -> None:
    """A table of issues that was made for other data, or for another order of it, is found by its labels."""
    if listed.labelled is None:
        return
    keys, labels = listed.labelled
    _, rows = rows_of(text, keys, data, listed.title)
    if bool(((rows < 0) | (rows >= len(data))).any()):
        return  # told with the rows that are listed
    stored = data.examples.labels.cpu()[rows].tolist()
    theirs = match_classes(labels, data.classes, f"{text}, column 'given_label'")
    differ = [at for at, (label, given) in enumerate(zip(stored, theirs, strict=True)) if given != label]
    if differ:
        at = differ[0]
        raise DataError(
            f"{text} was made for other labels: {len(differ)} of {len(stored)} differ (the first: row {int(rows[at])} "
            f"is {labels[at]} there and {data.classes[stored[at]]} in the data); make the table from this data, in "
            "this order"
        )
