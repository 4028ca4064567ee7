"""Options that several commands have, declared once as a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


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
