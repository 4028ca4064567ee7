"""Files that list rows: positions, names or marks, as text, table, JSON or array."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.data.location import check_regular
from expunge.data.npz import read_array
from expunge.errors import DataError, first_few, near_miss
from expunge.inputs.row_keys import NAME_COLUMNS, POSITION_COLUMNS, RowNames, is_number
from expunge.inputs.specification import Specification

_MARKS = ("is_label_issue", "forget", "is_bad", "bad", "remove", "is_issue")
LABEL_COLUMNS = ("true_label", "clean_label", "corrected_label", "correct_label")
TITLES = (*_MARKS, *POSITION_COLUMNS, *NAME_COLUMNS)
_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".npy")
_TRUE, _FALSE = ("true", "1", "yes", "1.0"), ("false", "0", "no", "0.0")


@dataclass(frozen=True)
class Listed:
    """What a list holds.

    Args:
        values: positions (int), positions or names as text (str), or one mark per row (bool).
        title: of the column they stand in; empty for a list without one.
        labelled: all rows of a table of issues and their labels, where it says them.
        notes: what was decided in reading, for the user.
    """

    values: Sequence[Any]
    title: str = ""
    labelled: tuple[Sequence[Any], Sequence[Any]] | None = None
    notes: tuple[str, ...] = ()


def as_marks(values: Sequence[Any]) -> list[bool] | None:
    """Return ``values`` as booleans, or ``None`` if one of them is no yes or no."""
    texts = [str(value).strip().lower() for value in values]
    if any(text not in _TRUE + _FALSE for text in texts):
        return None
    return [text in _TRUE for text in texts]


def file_and_column(text: str) -> tuple[Path, str | None]:
    """Return the two parts of ``FILE?column=NAME``; refuse other settings."""
    specification = Specification.parse(text)
    unknown = [name for name in specification.settings if name != "column"]
    if unknown:
        raise DataError(f"{text!r}: a forget list has no setting {unknown[0]!r}; expected FILE?column=NAME")
    column = specification.settings.get("column")
    return Path(specification.target).expanduser(), None if column is None else str(column)


def read_list(path: Path, column: str | None, names: RowNames) -> Listed:
    """Read a ``.txt``, ``.csv``, ``.tsv``, ``.json`` or ``.npy`` file.

    ``column`` is that of a table, by default the one whose title says it. What is one of the ``names`` of the data is
    one in the file, whatever its characters.
    """
    if path.suffix not in _SUFFIXES:
        raise DataError(
            f"{path}: a forget list is a {', '.join(_SUFFIXES)} file, or column:NAME for a column of the data"
        )
    if path.suffix in (".csv", ".tsv"):
        return _listed(path, read_table(path, names), column, names)
    if column is not None:
        raise DataError(f"{path}: only a .csv or .tsv file has columns; leave '?column={column}' out")
    if path.suffix == ".npy":
        return _array(path)
    if path.suffix == ".json":
        return _json(path, read_json(path, names))
    lines = [_without_comment(line, names) for line in read_text(path, names).split("\n")]
    return Listed([line for line in lines if line])


def read_text(path: Path, names: RowNames) -> str:
    """Return a file of UTF-8 text, with bytes that are none as the names of the data show them."""
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8-sig", errors="backslashreplace" if names.escaped else "strict")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; check the path and its permissions") from error


def _without_comment(line: str, names: RowNames) -> str:
    """A comment begins with ``#`` after a space, but a name of the data may hold one as well."""
    end = len(line)
    while end > 0:
        if names.hold(line[:end], "#"):
            return line[:end].strip()
        end = line.rfind("#", 0, end)
    return re.split(r"(?<!\S)#", line, maxsplit=1)[0].strip()


def read_json(path: Path, names: RowNames) -> Any:
    """Return what a file of JSON holds."""
    text = read_text(path, names)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        raise DataError(f"{path} is no JSON: {said:.200}; it may be truncated, write it again") from error


def _json(path: Path, found: Any) -> Listed:
    notes: tuple[str, ...] = ()
    if isinstance(found, Mapping):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise DataError(
                f"{path} is an object with {len(lists)} lists ({first_few(lists) or 'none'}), expected one; save the "
                "list of rows alone"
            )
        notes = (f"read from {lists[0]!r} of {path.name}",)
        found = found[lists[0]]
    if not isinstance(found, list) or any(not isinstance(value, bool | int | str) for value in found):
        raise DataError(f"{path}: expected a list of positions, names or booleans; save one of these")
    return Listed(found, notes=notes)


def _array(path: Path) -> Listed:
    check_regular(path)
    try:
        array = read_array(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; check its permissions") from error
    except ValueError as error:
        raise DataError(
            f"{path} is no readable .npy file ({error}); it is truncated or holds objects, write it with np.save"
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "iubU":
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}; expected integers, booleans or strings of shape (F,)"
        )
    return Listed(array.tolist())


def read_table(path: Path, names: RowNames) -> list[list[str]]:
    """Return the cells of a ``.csv`` or ``.tsv`` file, row by row; every row has as many as the first."""
    text = read_text(path, names)
    separator = "\t" if path.suffix == ".tsv" else ","
    lines = [line for line in text.split("\n") if line.strip()]
    # Names that hold the separator may stand there without quotes.
    if any(names.hold(line, separator) for line in lines) and all(line in names for line in lines[1:]):
        return [[line] for line in lines]
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    except csv.Error as error:
        raise DataError(f"{path} is no readable table: {error}; write it again") from error
    uneven = next((number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if uneven is not None:
        raise DataError(
            f"{path}, line {uneven}: {len(rows[uneven - 1])} cells, but the header has {len(rows[0])}; the file is "
            "damaged or truncated, or a cell with a separator lacks its quotes"
        )
    twice = [name for name, times in Counter(rows[0] if rows else []).items() if times > 1 and name]
    if twice:
        raise DataError(f"{path} has two columns {twice[0]!r:.100}; rename one")
    return rows


def key_column(titles: Sequence[str]) -> str | None:
    """Return the title of the column that says which row a line is about, if there is one."""
    return next((name for name in ("", *POSITION_COLUMNS, *NAME_COLUMNS) if name in titles), None)


def title_of(cell: str) -> str:
    """Return a title: a known one in lower case, others as they are."""
    known = (*TITLES, *LABEL_COLUMNS, "given_label")
    return cell.strip().lower() if cell.strip().lower() in known else cell.strip()


def by_title(rows: list[list[str]]) -> dict[str, list[str]]:
    """Return the columns of a table that has a header."""
    return {title_of(cell): [row[i].strip() for row in rows[1:]] for i, cell in enumerate(rows[0])}


def _listed(path: Path, rows: list[list[str]], column: str | None, names: RowNames) -> Listed:
    if not rows:
        return Listed([])
    table = by_title(rows)
    header = list(table)
    column = None if column is None else title_of(column)
    if len(rows[0]) == 1 and column is None:
        if is_number(header[0]) or rows[0][0] in names:
            return Listed([row[0].strip() for row in rows])
        if header[0] not in TITLES:
            raise DataError(
                f"{path}: {header[0]!r:.200} in the first line is no row of the data, and no title that says what "
                f"follows ({', '.join((POSITION_COLUMNS[0], NAME_COLUMNS[0], *_MARKS[:2]))}); correct it, or say that "
                f"it is a title: {path.name}?column=TITLE"
            )
    if column is not None and column not in table:
        raise DataError(
            f"{path} has no column {column!r}{near_miss(column, header)}; it has {first_few(header, 8)}"
        )
    chosen = next((name for name in TITLES if name in table), None) if column is None else column
    if chosen is None:
        raise DataError(
            f"{path}: which column names the rows is not clear; it has {first_few(header, 8)}. Name it: "
            f"{path.name}?column=NAME"
        )
    values = table[chosen]
    notes = (f"read from column {chosen!r} of {path.name}",)
    # A column called "index" that holds only 0 and 1 is still a list of positions.
    marks = as_marks(values) if chosen not in (*POSITION_COLUMNS, *NAME_COLUMNS) else None
    if chosen.startswith("is_") and marks is None:
        odd = next(value for value in values if as_marks([value]) is None)
        raise DataError(f"{path}: column {chosen!r} holds {odd!r:.100}, expected True or False in every row")
    if marks is None:
        return Listed(values, chosen, notes=notes)
    keyed = key_column([name for name in header if name != chosen])
    # The key says which row is meant; without it the lines are the rows in order.
    if keyed is None:
        return Listed(marks, notes=notes)
    if not any(marks):
        raise DataError(
            f"{path} marks no row, so there is nothing to take out; to look for bad rows is the work of 'expunge find'"
        )
    bad = [key for key, mark in zip(table[keyed], marks, strict=True) if mark]
    labelled = (table[keyed], table["given_label"]) if "given_label" in table else None
    return Listed(bad, keyed, labelled, (*notes, f"rows named by column {keyed!r}"))
