"""Tables that a spreadsheet may open: text that it would run as a formula is written as text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return ``rows`` as csv, with a ``'`` before text that begins with ``=``, ``+``, ``-`` or ``@``; numbers stay."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([as_text(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def as_text(cell: object) -> object:
    """Return a cell that is no formula."""
    formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if formula else cell


def from_text(cell: str) -> str:
    """Return the text that :func:`as_text` made ``cell`` of."""
    return cell[1:] if cell[:1] == "'" and as_text(cell[1:]) == cell else cell
