"""The regularity axis of the task map: names and positions, free of torch."""

from __future__ import annotations

from expunge.errors import InvalidInput, UnknownName

REGULARITIES = {"random": 0.0, "interclass": 0.5, "poison": 1.0}
"""The named points of the regularity axis."""


def regularity_value(given: str | float) -> float:
    """Return the position on the axis for a name or a number in [0, 1].

    Raises:
        UnknownName: neither a name of the axis nor a number.
        InvalidInput: a number outside [0, 1].
    """
    if given in REGULARITIES:
        return REGULARITIES[str(given)]
    try:
        value = float(given)
    except ValueError:
        raise UnknownName(
            f"unknown regularity {given!r}; expected {', '.join(REGULARITIES)} or a number in [0, 1]"
        ) from None
    if not 0 <= value <= 1:
        raise InvalidInput(f"regularity must lie in [0, 1] (0 random, 0.5 interclass, 1 poison), got {value}")
    return value


def regularity_name(value: float) -> str:
    """Return the name of a named point, else the number."""
    return next((name for name, point in REGULARITIES.items() if point == value), f"{value:g}")
