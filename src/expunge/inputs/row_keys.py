"""What a list calls a row, its position or its name, and the row of the data that is meant."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from expunge.errors import DataError, first_few, near_miss
from expunge.store.spreadsheet import from_text

if TYPE_CHECKING:
    from expunge.inputs.training_data import TrainingData

POSITION_COLUMNS = ("index", "indices", "position", "positions", "row", "idx")
NAME_COLUMNS = ("file", "files", "filename", "file_name", "name", "path", "image")

# A leading zero shows a name; tables with gaps write whole numbers as 5.0.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")


def is_number(text: str) -> bool:
    """Whether ``text`` is a whole number as a position is written: "7", not "007"."""
    return _NUMBER.fullmatch(text) is not None


def printable(name: str | Path) -> str:
    r"""Return a name with each byte that is no UTF-8 as ``\xNN``, so that it can be shown and written."""
    # A lone surrogate is how Python reads such a byte of a file's name.
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def same_text(text: str) -> str:
    """Return ``text`` without space around it and with composed accents: what looks the same is the same."""
    return unicodedata.normalize("NFC", text.strip())


class RowNames:
    """Rows by name, as a list may write it.

    First the name itself, then one that looks the same (``./``, accents, a backslash for ``/``), then the end
    of a row's name, or a longer path that ends in it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._ends: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        for row, name in enumerate(names):
            self._exact[name].append(row)
            parts = PurePosixPath(same_text(name)).parts
            self._ends[parts[-1] if parts else ""].append((parts, row))

    def find(self, text: str) -> list[int]:
        """Return the rows that ``text`` can mean."""
        if not text.strip() or not self._exact:
            return []
        if text in self._exact:
            return self._exact[text]
        for form in (text, text.replace("\\", "/"), from_text(text)):
            wanted = PurePosixPath(same_text(form)).parts or ("",)
            found = [
                (parts, row)
                for parts, row in self._ends.get(wanted[-1], [])
                if parts[-len(wanted) :] == wanted[-len(parts) :]
            ]
            whole = [row for parts, row in found if parts == wanted]
            if found:
                return whole or [row for _, row in found]
        return []

    def __contains__(self, text: str) -> bool:
        return bool(self.find(text))

    def hold(self, text: str, mark: str) -> bool:
        """Whether ``text`` means a row whose name holds ``mark``, which has a meaning of its own in a list."""
        return mark in text and any(mark in self._names[row] for row in self.find(text))

    @property
    def escaped(self) -> bool:
        r"""Whether a name holds a byte that is no UTF-8, which is shown as ``\xNN``."""
        return any("\\x" in name for name in self._names)


def rows_of(
    source: str, keys: Sequence[Any], data: TrainingData, title: str = ""
) -> tuple[Literal["positions", "names"], Tensor]:
    """Return how ``keys`` are meant, and int64 (F,): the rows, in their order.

    Integers are positions. Texts are what the title of their column says; under another title or none they are
    positions if all are whole numbers, else names. Refused are keys of both kinds, numbers that are names of other rows
    too, and names that are unknown, ambiguous or given twice; not positions outside the data.
    """
    odd = next((key for key in keys if isinstance(key, bool) or not isinstance(key, int | str)), None)
    texts = [key for key in keys if isinstance(key, str)]
    if odd is None and 0 < len(texts) < len(keys):
        odd = next(key for key in keys if not isinstance(key, str))
    if odd is not None:
        raise DataError(f"{source} mixes names with {odd!r}; give positions alone, or names alone")
    by_name = bool(texts) and (title in NAME_COLUMNS or not all(map(is_number, texts)))
    if by_name:
        return "names", _named(source, texts, data)
    try:
        positions = torch.tensor([int(str(key).partition(".")[0]) for key in keys], dtype=torch.int64)
    except (OverflowError, RuntimeError, ValueError) as error:
        largest = max(keys, key=lambda key: len(str(key)))
        raise DataError(
            f"{source} holds {largest!s:.40}, which is no position; number the rows from 0"
        ) from error
    if title not in POSITION_COLUMNS:
        for text, position in zip(texts, positions.tolist(), strict=False):
            rows = data.row_names.find(text)
            if rows and rows != [position]:
                raise DataError(
                    f"{source}: {text!r} is a position, and the name of row {rows[0]} too; give a .csv whose column "
                    f"is called {POSITION_COLUMNS[0]} or {NAME_COLUMNS[0]}"
                )
    return "positions", positions


def _named(source: str, texts: Sequence[str], data: TrainingData) -> Tensor:
    if not data.names:
        raise DataError(
            f"{source} names rows ({first_few(list(texts), 2)}), but the rows of this data have no names; give "
            f"positions from 0 to {len(data) - 1}"
        )
    rows, unknown = [], []
    for text in texts:
        found = data.row_names.find(text)
        if len(found) > 1:
            raise DataError(
                f"{source}: {text!r} is the name of {len(found)} files "
                f"({first_few([data.names[row] for row in found])}); name the folder too"
            )
        rows += found
        if not found:
            unknown.append(text)
    if unknown:
        raise DataError(
            f"{source}: {len(unknown)} of {len(texts)} names are not in the data (the first is {unknown[0]!r:.200}"
            f"{near_miss(unknown[0], data.names)}); names are relative to the data's folder, as in {data.names[0]!r}"
        )
    twice = [data.names[row] for row, times in Counter(rows).items() if times > 1]
    if twice:
        raise DataError(
            f"{source} names {len(twice)} rows more than once (the first is {twice[0]!r}); name each once"
        )
    return torch.tensor(rows, dtype=torch.int64)
