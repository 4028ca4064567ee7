"""Which rows of the training data are bad, or what their true labels are: read from what the user brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.errors import DataError, first_few, near_miss
from expunge.inputs.forget_files import (
    LABEL_COLUMNS,
    Listed,
    as_marks,
    by_title,
    file_and_column,
    key_column,
    read_json,
    read_list,
    read_table,
    title_of,
)
from expunge.inputs.row_keys import NAME_COLUMNS, POSITION_COLUMNS, rows_of, same_text
from expunge.inputs.training_data import TrainingData, match_classes
from expunge.tasks.base import check_forget

UNKNOWN = -1
"""In place of a true label that is not known."""


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


@dataclass(frozen=True)
class KnownTruth:
    """What is known.

    Args:
        bad: bool (N,), the rows that were listed, or whose true label is not the given one.
        labels: int64 (N,), true labels, :data:`UNKNOWN` where one is not known; ``None`` for a list of rows.
        source: where it was read from.
        note: how it was read, for the user.
    """

    bad: Tensor
    labels: Tensor | None
    source: str
    note: str


def read_truth(text: str, data: TrainingData) -> KnownTruth:
    """Return the truth that ``text`` names.

    True labels are

    - ``FILE.csv`` or ``.tsv`` with a column ``true_label``, ``clean_label``, ``corrected_label`` or
      ``correct_label``, or ``?column=NAME``, and a column of rows (``index``, ``name``, ...); without the latter
      there must be a line for each row of the data. An empty label is one that is not known;
    - ``FILE.json``: an object, row or name -> label;
    - ``FILE.json``, ``.txt`` or ``.npy``: a list of one label per row;
    - ``column:NAME``: a column of the data.

    Labels are all names of classes, or all their numbers. Anything else is a list of the bad rows, see
    :func:`read_forget_list`; so is a column of nothing but 0 and 1, unless it has one of the four names.

    Raises:
        DataError: an unreadable file, or rows and classes that are not those of the data.
        InvalidInput: an empty list of rows, a row named twice or out of range, or every row.
    """
    found = _labels(text, data)
    if found is not None:
        labels = _placed(text, *found, data)
        bad = (labels != UNKNOWN) & (labels != data.examples.labels.cpu())
        note = f"read as {int((labels != UNKNOWN).sum())} true labels: {int(bad.sum())} differ from the given ones"
        return KnownTruth(bad, labels, text, note)
    listed = read_forget_list(text, data)
    bad = torch.zeros(len(data), dtype=torch.bool)
    bad[listed.positions] = True
    note = f"read as a list of {len(listed.positions)} bad rows, by {listed.form}"
    return KnownTruth(bad, None, text, note)


def read_true_labels(text: str, data: TrainingData) -> Tensor:
    """Return the true labels that ``text`` names, int64 (N,), :data:`UNKNOWN` where one is not known.

    Raises:
        DataError: as in :func:`read_truth`, or a list of rows, which holds no labels.
    """
    labels = read_truth(text, data).labels
    if labels is None:
        raise DataError(
            f"{text} holds no true labels: it was read as a list of bad rows; call their column {LABEL_COLUMNS[0]}"
        )
    return labels


def _labels(text: str, data: TrainingData) -> tuple[Tensor | None, Sequence[Any]] | None:
    """Rows (``None``: all, in order) and their labels; ``None`` where ``text`` is a list of rows."""
    if text.startswith("column:"):
        name = text.removeprefix("column:")
        if name not in data.columns:
            return None  # what the data has is told by the reader of lists
        own = data.columns[name]
        return None if name not in LABEL_COLUMNS and as_marks(own) is not None else (None, own)
    path, column = file_and_column(text)
    if path.suffix in (".csv", ".tsv"):
        return _in_table(text, path, column, data)
    if path.suffix == ".json":
        found = read_json(path, data.row_names)
        if isinstance(found, Mapping) and not any(isinstance(value, list) for value in found.values()):
            return _rows_in_data(str(path), list(found), data), list(found.values())
        values: Sequence[Any] = found if isinstance(found, list) else []
    else:
        values = read_list(path, column, data.row_names).values
    marks = all(isinstance(value, bool) for value in values)
    return None if marks or len(values) != len(data) or not _mostly_classes(values, data) else (None, values)


def _in_table(
    text: str, path: Path, column: str | None, data: TrainingData
) -> tuple[Tensor | None, Sequence[Any]] | None:
    rows = read_table(path, data.row_names)
    table = by_title(rows) if rows else {}
    chosen = title_of(column) if column else next((name for name in LABEL_COLUMNS if name in table), None)
    if chosen not in table or (chosen not in LABEL_COLUMNS and as_marks(table[chosen]) is not None):
        return None
    keyed = key_column([name for name in table if name != chosen])
    return None if keyed is None else _rows_in_data(text, table[keyed], data, keyed), table[chosen]


def _rows_in_data(text: str, keys: Sequence[str], data: TrainingData, title: str = "") -> Tensor:
    """Return the rows that ``keys`` name, int64 (F,), each in the data and named once."""
    _, rows = rows_of(text, keys, data, title)
    outside = rows[(rows < 0) | (rows >= len(data))]
    if len(outside):
        raise DataError(f"{text}: row {int(outside[0])} is not in the data, which has {len(data)} rows")
    if len(set(rows.tolist())) < len(rows):
        raise DataError(f"{text} names a row more than once; give each row one true label")
    return rows


def _mostly_classes(values: Sequence[Any], data: TrainingData) -> bool:
    """Whether a list was meant as labels: one that is no class is then a mistake, and is told."""
    known = {same_text(name) for name in data.classes} | {str(number) for number in range(len(data.classes))}
    return sum(same_text(str(value)) in known or _is_empty(value) for value in values) > len(values) / 2


def _placed(text: str, rows: Tensor | None, found: Sequence[Any], data: TrainingData) -> Tensor:
    if rows is None:
        if len(found) != len(data):
            raise DataError(
                f"{text} holds {len(found)} labels, but the data has {len(data)} rows; name the row of each label in "
                f"a column ({POSITION_COLUMNS[0]}, {NAME_COLUMNS[0]})"
            )
        rows = torch.arange(len(data))
    there = [i for i, value in enumerate(found) if not _is_empty(value)]
    if not there:
        raise DataError(f"{text} holds no true label; fill in the labels that are known")
    at = rows[there]
    labels = torch.full((len(data),), UNKNOWN)
    names = [data.name(row) for row in at.tolist()]
    labels[at] = torch.tensor(match_classes([found[i] for i in there], data.classes, text, names))
    return labels


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value != value
