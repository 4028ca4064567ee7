"""Options that several commands have, declared once as a dataclass; and what is read from lists between commas."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from expunge.errors import InvalidInput


def takes(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of dataclasses as options; it gets each dataclass as a keyword argument.

    Args:
        groups: name of a keyword-only argument of the command -> dataclass whose fields are options.
    """

    def with_groups(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        kept = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.parameters.items()
            if name not in groups
        ]
        fields = {name: inspect.signature(kind, eval_str=True).parameters for name, kind in groups.items()}

        @functools.wraps(command)
        def called(**given: Any) -> None:
            made = {
                name: kind(**{field: given.pop(field) for field in fields[name]})
                for name, kind in groups.items()
            }
            command(**given, **made)

        del called.__wrapped__  # else typer looks at the command itself
        added = [parameter for group in fields.values() for parameter in group.values()]
        called.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        called.__annotations__ = {}
        return called

    return with_groups


def items(option: str, text: str) -> list[str]:
    """Return the parts between commas.

    Raises:
        InvalidInput: there are none.
    """
    found = [item.strip() for item in text.split(",") if item.strip()]
    if not found:
        raise InvalidInput(f"{option} is empty; give at least one value")
    return found


def numbers(option: str, text: str, kind: type[Any] = int) -> tuple[Any, ...]:
    """Return the numbers between commas.

    Raises:
        InvalidInput: there are none, or something else is among them.
    """
    found = items(option, text)
    try:
        return tuple(kind(item) for item in found)
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise InvalidInput(f"{option} takes {what} separated by commas; got {text!r}") from error
