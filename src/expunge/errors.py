"""Every exception expunge raises on purpose; catch :class:`ExpungeError` for all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ExpungeError(Exception):
    """Base of every error raised by expunge."""


class InvalidInput(ExpungeError, ValueError):
    """A value from the caller cannot be used; the message says what came, what was expected, what to do."""


class UnknownName(InvalidInput, LookupError):
    """A name that no table holds; the message offers the near miss."""


class DataError(InvalidInput):
    """A data file or tensor that is unreadable, truncated or inconsistent."""


class UndeclaredNeed(ExpungeError):
    """A method touched something that it did not declare in ``needs``."""


class Diverged(ExpungeError, ArithmeticError):
    """Training produced a loss or a parameter that is not finite."""


class StoreError(ExpungeError):
    """The store cannot be opened, read or written."""


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to ``name``, or nothing."""
    if len(name) > 200:  # the comparison takes time with the square of the length
        return ""
    near = difflib.get_close_matches(name, [other for other in known if len(other) <= 200], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def first_few(names: Sequence[str], count: int = 3) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
