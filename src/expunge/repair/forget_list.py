"""Which rows of the training data are bad: read from a list the user brings, and matched with the data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from expunge.errors import DataError, near_miss
from expunge.repair.findings import first_few
from expunge.repair.forget_files import Listed, as_marks, read_list
from expunge.repair.specification import Specification
from expunge.repair.training_data import TrainingData
from expunge.tasks.base import check_forget


@dataclass(frozen=True)
class ForgetList:
    """The rows to be forgotten.

    Args:
        positions: int64 (F,), sorted positions in the training data.
        source: where they were read from.
        form: how they were named: "positions", "names" or "marks" (a boolean per row).
        per_class: class name -> number of rows of that stored label, for classes with any.
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
        specification = Specification.parse(text)
        unknown = [name for name in specification.settings if name != "column"]
        if unknown:
            raise DataError(
                f"{text!r}: a forget list has no setting {unknown[0]!r}; expected FILE?column=NAME"
            )
        column = specification.settings.get("column")
        path = Path(specification.target).expanduser()
        listed = read_list(path, None if column is None else str(column), set(data.names))
    _check_labels(text, listed, data)
    form, positions = _positions(text, listed.values, data)
    found = check_forget(positions, len(data))
    labels = data.examples.labels.cpu()[found].tolist()
    per_class = {data.classes[label]: count for label, count in sorted(Counter(labels).items())}
    return ForgetList(found, text, form, per_class, listed.notes)


def _own_column(name: str, data: TrainingData) -> Listed:
    if name not in data.columns:
        has = f"it has {', '.join(data.columns)}" if data.columns else "it has none beside inputs and labels"
        raise DataError(f"the data has no column {name!r}{near_miss(name, data.columns)}; {has}")
    values = data.columns[name]
    marks = as_marks(values)
    if marks is None:
        odd = next(value for value in values if as_marks([value]) is None)
        raise DataError(
            f"column {name!r} of the data holds {odd!r}, expected true or false in every row; make a column that "
            "is true where a row is bad"
        )
    return Listed(marks)


def _positions(text: str, values: Sequence[Any], data: TrainingData) -> tuple[str, Tensor]:
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
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        try:
            return "positions", torch.tensor(values, dtype=torch.int64)
        except (OverflowError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{text} holds {max(values, key=abs)}, which is no position; number the rows from 0"
            ) from error
    if not all(isinstance(value, str) for value in values):
        odd = next(value for value in values if not isinstance(value, str))
        raise DataError(f"{text} mixes names with {odd!r}; give positions alone, or names alone")
    return "names", rows_named(text, values, data)


def rows_named(text: str, values: Sequence[str], data: TrainingData) -> Tensor:
    """Return the positions int64 (F,) of the rows called ``values``, in their order; ``text`` is their source.

    Raises:
        DataError: rows without names, or a name that is unknown, ambiguous or given twice.
    """
    if not data.names:
        raise DataError(
            f"{text} names rows ({first_few(list(values), 2)}), but the rows of this data have no names; give "
            f"positions from 0 to {len(data) - 1}"
        )
    exact = {name: row for row, name in enumerate(data.names)}
    by_end: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(data.names):
        by_end[PurePosixPath(name).name].append(row)
    rows, unknown = [], []
    for value in values:
        wanted = PurePosixPath(value.replace("\\", "/"))
        found = [exact[str(wanted)]] if str(wanted) in exact else _ending_alike(wanted, by_end, data.names)
        if len(found) > 1:
            raise DataError(
                f"{text}: {value!r} is the name of {len(found)} files "
                f"({first_few([data.names[row] for row in found])}); name the folder too"
            )
        if found:
            rows.append(found[0])
        else:
            unknown.append(value)
    if unknown:
        raise DataError(
            f"{text}: {len(unknown)} of {len(values)} names are not in the data (the first is {unknown[0]!r}"
            f"{near_miss(unknown[0], data.names)}); names are relative to the data's folder, as in {data.names[0]!r}"
        )
    twice = [data.names[row] for row, times in Counter(rows).items() if times > 1]
    if twice:
        raise DataError(
            f"{text} names {len(twice)} rows more than once (the first is {twice[0]!r}); name each once"
        )
    return torch.tensor(rows, dtype=torch.int64)


def _ending_alike(wanted: PurePosixPath, by_end: dict[str, list[int]], names: Sequence[str]) -> list[int]:
    """Rows whose name ends as ``wanted``, or that ``wanted`` ends as (a longer path to the same file)."""
    found = []
    for row in by_end.get(wanted.name, []):
        theirs, ours = PurePosixPath(names[row]).parts, wanted.parts
        shared = min(len(theirs), len(ours))
        if theirs[-shared:] == ours[-shared:]:
            found.append(row)
    return found


def _check_labels(text: str, listed: Listed, data: TrainingData) -> None:
    """A table of issues that was made for other data, or for another order of it, is found by its labels."""
    if listed.given_labels is None or len(listed.given_labels) != len(data):
        return
    stored = data.examples.labels.tolist()
    theirs = [str(label) for label in listed.given_labels]
    differ = [
        row
        for row, (label, given) in enumerate(zip(stored, theirs, strict=True))
        if given not in (str(label), f"{label}.0", data.classes[label])
    ]
    if differ:
        row = differ[0]
        raise DataError(
            f"{text} was made for other labels: {len(differ)} of {len(data)} differ (the first: row {row} is "
            f"{theirs[row]} there and {data.classes[stored[row]]} in the data); make the table from this data, in "
            "this order"
        )
