"""Files that list rows: positions, names or marks, as text, table, JSON or array."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import DataError, near_miss

POSITION_COLUMNS = ("index", "indices", "position", "positions", "row", "idx")
NAME_COLUMNS = ("file", "files", "filename", "file_name", "name", "path", "image")
_MARKS = ("is_label_issue", "forget", "is_bad", "bad", "remove", "is_issue")
_TRUE, _FALSE = ("true", "1", "yes", "1.0"), ("false", "0", "no", "0.0")


@dataclass(frozen=True)
class Listed:
    """What a list holds.

    Args:
        values: positions (int), names (str) or one mark per row (bool).
        given_labels: the label of every row, where a table of issues says it.
        notes: what was decided in reading, for the user.
    """

    values: Sequence[Any]
    given_labels: Sequence[Any] | None = None
    notes: tuple[str, ...] = ()


def as_marks(values: Sequence[Any]) -> list[bool] | None:
    """Return ``values`` as booleans, or ``None`` if one of them is no yes or no."""
    texts = [str(value).strip().lower() for value in values]
    if any(text not in _TRUE + _FALSE for text in texts):
        return None
    return [text in _TRUE for text in texts]


def read_list(path: Path, column: str | None, names: Collection[str]) -> Listed:
    """Read a ``.txt``, ``.csv``, ``.tsv``, ``.json`` or ``.npy`` file.

    Args:
        path: the file.
        column: of a table; by default the one whose name says it.
        names: what the rows are called; tells a name from the title of a column.

    Raises:
        DataError: the file is missing, unreadable or of another kind, or lacks the column.
    """
    readers: dict[str, Callable[[Path], Listed]] = {
        ".txt": _text,
        ".csv": lambda path: _table(path, ",", column, names),
        ".tsv": lambda path: _table(path, "\t", column, names),
        ".json": _json,
        ".npy": _array,
    }
    if path.suffix not in readers:
        raise DataError(
            f"{path}: a forget list is a {', '.join(readers)} file, or column:NAME for a column of the data"
        )
    if column is not None and path.suffix not in (".csv", ".tsv"):
        raise DataError(f"{path}: only a .csv or .tsv file has columns; leave '?column={column}' out")
    try:
        return readers[path.suffix](path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected the list of rows to forget") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; check its permissions") from error


def _text(path: Path) -> Listed:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    return Listed(_numbers_or_names([line for line in lines if line]))


def _numbers_or_names(values: Sequence[str]) -> Sequence[Any]:
    numbers = [_whole(value) for value in values]
    return values if None in numbers else numbers


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _json(path: Path) -> Listed:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON: {error}; it may be truncated, write it again") from error
    notes: tuple[str, ...] = ()
    if isinstance(found, Mapping):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(
                f"{path} is an object with {len(lists)} lists ({', '.join(lists) or 'none'}), expected one; save the "
                "list of rows alone"
            )
        notes = (f"read from {lists[0]!r} of {path.name}",)
        found = found[lists[0]]
    if not isinstance(found, list) or any(not isinstance(value, bool | int | str) for value in found):
        raise DataError(f"{path}: expected a list of positions, names or booleans; save one of these")
    return Listed(found, notes=notes)


def _array(path: Path) -> Listed:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{path} is no readable .npy file ({error}); it is truncated or holds objects, write it with np.save"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iubU":
        what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"{path} holds {what}; expected integers, booleans or strings of shape (F,)")
    return Listed(array.tolist())


def _table(path: Path, separator: str, column: str | None, names: Collection[str]) -> Listed:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=separator) if row]
    if not rows:
        return Listed([])
    header = [cell.strip() for cell in rows[0]]
    if len(header) == 1 and column is None and (_whole(header[0]) is not None or header[0] in names):
        return Listed(_numbers_or_names([row[0].strip() for row in rows]))
    uneven = next((number for number, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if uneven is not None:
        raise DataError(
            f"{path}, line {uneven}: {len(rows[uneven - 1])} cells, but the header has {len(header)}; the file is "
            "damaged or truncated"
        )
    table = {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}
    if column is not None and column not in table:
        raise DataError(
            f"{path} has no column {column!r}{near_miss(column, header)}; it has {', '.join(header)}"
        )
    chosen = column or _column(path, table)
    values = table[chosen]
    notes = (f"read from column {chosen!r} of {path.name}",)
    # A column called "index" that holds only 0 and 1 is still a list of positions.
    marks = as_marks(values) if chosen not in POSITION_COLUMNS else None
    if chosen.startswith("is_") and marks is None:
        odd = next(value for value in values if as_marks([value]) is None)
        raise DataError(f"{path}: column {chosen!r} holds {odd!r}, expected True or False in every row")
    if marks is None:
        return Listed(_numbers_or_names(values), notes=notes)
    keyed = next(
        (name for name in ("", *POSITION_COLUMNS, *NAME_COLUMNS) if name in table and name != chosen), None
    )
    if keyed is None:
        return Listed(marks, table.get("given_label"), notes)
    # The first column says which row is meant; without it the lines are the rows in order.
    keys = _numbers_or_names(table[keyed])
    if list(keys) == list(range(len(keys))):
        return Listed(marks, table.get("given_label"), notes)
    bad = [key for key, mark in zip(keys, marks, strict=True) if mark]
    if not bad:
        raise DataError(f"{path} marks no row; there is nothing to forget")
    return Listed(bad, notes=(*notes, f"rows named by column {keyed!r}"))


def _column(path: Path, table: Mapping[str, Sequence[str]]) -> str:
    if len(table) == 1:
        return next(iter(table))
    for known in (_MARKS, POSITION_COLUMNS, NAME_COLUMNS):
        found = [name for name in known if name in table]
        if found:
            return found[0]
    raise DataError(
        f"{path}: which column names the rows is not clear; it has {', '.join(table)}. Name it: "
        f"{path.name}?column=NAME"
    )
