"""What a user writes to name a model or a data set: ``target?setting=value&...``."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from expunge.errors import InvalidInput, near_miss
from expunge.user_modules import importable, load_file


@dataclass(frozen=True)
class Specification:
    """A target and its settings.

    Args:
        target: what stands before the question mark.
        settings: name -> value; values are read as TOML, anything else is text.
    """

    target: str
    settings: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Specification:
        """Read ``target?name=value&name=value``.

        Raises:
            InvalidInput: no target, a setting without a value, or one given twice.
        """
        target, _, tail = text.strip().partition("?")
        if not target:
            raise InvalidInput(f"{text!r} names nothing; expected TARGET or TARGET?SETTING=VALUE&...")
        settings: dict[str, Any] = {}
        for part in tail.split("&") if tail else []:
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not (name and equals and value):
                raise InvalidInput(f"{text!r}: {part!r} is no setting; expected SETTING=VALUE")
            if name in settings:
                raise InvalidInput(f"{text!r}: setting {name!r} is given twice; give it once")
            settings[name] = plain_value(value)
        return cls(target, settings)


def plain_value(text: str) -> Any:
    """Return ``text`` read as a TOML value; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def call_factory(target: str, settings: Mapping[str, Any], what: str) -> Any:
    """Return what the factory at ``path/to/file.py:name`` or ``package.module:name`` makes.

    The file's folder can be imported from while the file is loaded and the factory runs.

    Args:
        target: file or module, a colon, and the name of a function or class.
        settings: keyword arguments of the call.
        what: what the factory is to make ("a model"); for messages.

    Raises:
        InvalidInput: no such file, module or name; a file that fails to load; a factory that raises.
    """
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        raise InvalidInput(
            f"{target!r} names no factory; expected path/to/file.py:NAME, where NAME makes {what}"
        )
    with importable(Path(place).parent if place.endswith(".py") else Path.cwd()):
        try:
            module = _module(place)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                f"{place} cannot be loaded: {type(error).__name__}: {error}; it must import on its own"
            ) from error
        factory: Callable[..., Any] | None = getattr(module, name, None)
        if not callable(factory):
            offered = [
                key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
            ]
            raise InvalidInput(
                f"{place} has no function or class {name!r}{near_miss(name, offered)}; expected one that makes {what}"
            )
        try:
            return factory(**settings)
        except InvalidInput:
            raise
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
            raise InvalidInput(
                f"{name}({given}) in {place} raised {type(error).__name__}: {error}"
            ) from error


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).expanduser()
    if not path.is_file():
        raise InvalidInput(f"{place}: no such file; expected path/to/file.py:NAME")
    return load_file(path)


def is_path(name: str) -> bool:
    """Whether ``name`` can only be a path: a mistyped one is not to be looked up on a hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
