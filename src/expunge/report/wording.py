"""Numbers as text: percent, seconds, counts, bytes, places of the map."""

from __future__ import annotations

from expunge.report.summary import CellSummary, Summary
from expunge.statistics import Interval

MISSING = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction in percent, without the sign."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def with_interval(interval: Interval | None, between: str = " ") -> str:
    """Return mean, ``between``, ± half-width of the 95 % t-interval, in percent; the mean alone for one seed."""
    if interval is None:
        return MISSING
    spread = "" if interval.half_width is None else f"{between}±{percent(interval.half_width)}"
    return percent(interval.mean) + spread


def signed_interval(interval: Interval) -> str:
    """Return a difference with its sign, ± the half-width of its 95 % t-interval, in points."""
    spread = "" if interval.half_width is None else f" ±{percent(interval.half_width)}"
    return f"{100 * interval.mean:+.1f}{spread}"


def duration(seconds: float | None) -> str:
    """Return a time with its unit, to about three digits."""
    if seconds is None:
        return MISSING
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    return f"{seconds:.0f} s" if seconds < 5999.5 else f"{seconds / 3600:.3g} h"


def count(number: float | None) -> str:
    """Return a number with k, M or G, to three digits."""
    if number is None:
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # from here on three digits round up to the unit
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def counted(number: int, noun: str) -> str:
    """Return ``1 run``, ``2 runs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def megabytes(size: float | None) -> str:
    """Return a number of bytes in MB."""
    return MISSING if size is None else f"{size / 1e6:.3g}"


def place_text(summary: Summary, cell: CellSummary) -> str:
    """Return where a cell lies on the map: ``poison, 10% known``."""
    regularity = summary.regularity_labels[cell.regularity]
    return f"{regularity}, {summary.discovery_labels[cell.discovery]} known"
