"""Numbers as text: percent, seconds, counts, bytes; what is not known (``None`` or NaN) as a dash."""

from __future__ import annotations

MISSING = "–"
ABSENT, UNLEARNED = "×", "°"
"""For a value that is missing from the map, and behind one whose original model had not learned the corruption."""


def is_known(value: float | None) -> bool:
    """Whether there is a number, neither ``None`` nor NaN."""
    return value is not None and value == value


def number(value: float | None, form: str = "", factor: float = 1.0) -> str:
    """Return ``factor * value`` in a format of Python's."""
    return MISSING if value is None or value != value else f"{factor * value:{form}}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction in percent, without the sign."""
    return number(value, f".{digits}f", 100)


def with_interval(mean: float | None, half_width: float | None = None, between: str = " ") -> str:
    """Return mean, ``between``, ± half-width of its interval, in percent; the mean alone where there is none."""
    spread = f"{between}±{percent(half_width)}" if is_known(mean) and is_known(half_width) else ""
    return percent(mean) + spread


def signed_interval(mean: float | None, half_width: float | None = None) -> str:
    """Return a difference with its sign, ± the half-width of its interval, in points."""
    spread = f" ±{percent(half_width)}" if is_known(half_width) else ""
    return number(mean, "+.1f", 100) + spread


def duration(seconds: float | None) -> str:
    """Return a time with its unit, to about three digits."""
    if seconds is None or seconds != seconds:
        return MISSING
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    return f"{seconds:.0f} s" if seconds < 5999.5 else f"{seconds / 3600:.3g} h"


def count(number: float | None) -> str:
    """Return a number with k, M or G, to three digits."""
    if number is None or number != number:
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # from here on three digits round up to the unit
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def counted(number: int, noun: str) -> str:
    """Return ``1 run``, ``2,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def megabytes(size: float | None) -> str:
    """Return a number of bytes in MB."""
    return number(size, ".3g", 1e-6)


def printable(text: str) -> str:
    """Return ``text`` on one line and without control characters, which would steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
