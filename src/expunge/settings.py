"""Settings classes: made from names and values that a user wrote, and what their docstrings say of them."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from expunge.errors import ExpungeError, InvalidInput, UnknownName, near_miss

NAMED = "named"
"""Metadata of a number's field that takes names too, which the class itself looks up."""

_Settings = TypeVar("_Settings")
_PLAIN: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
}
_SEVERAL = re.compile(r"tuple\[(?P<entry>\w+)")
_ENTRY = re.compile(r"    (?P<name>[\w*]+): ?(?P<text>.*)")


def make_settings(kind: type[_Settings], content: Mapping[str, Any], owner: str | None = None) -> _Settings:
    """Return the settings class ``kind`` with the values of a table; ``owner`` names it in messages.

    Raises:
        UnknownName: a setting it does not have.
        InvalidInput: a value of the wrong type or outside its range.
    """
    owner = owner or kind.__name__
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in content:
        if name not in known:
            raise UnknownName(
                f"{owner} has no setting {name!r:.100}{near_miss(name, known)} (settings: {', '.join(known) or 'none'})"
            )
    check_types(owner, kind, content)
    try:
        return kind(**content)
    except ExpungeError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong_type(owner, content, error) from error


def check_types(owner: str, kind: Any, settings: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidInput` for the first value that is not of its field's type.

    What a constructor takes without a look would fail late, or never: any text passes for true.
    """
    for entry in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        if entry.name not in settings:
            continue
        value = settings[entry.name]
        if isinstance(value, str) and entry.metadata.get(NAMED):
            continue
        if isinstance(entry.default, bool) and not isinstance(value, bool):
            raise InvalidInput(f"{owner}: {entry.name} must be true or false, got {value!r:.100}")
        declared = str(getattr(entry.type, "__name__", entry.type))
        plain = declared.removesuffix(" | None")
        if value is None and plain != declared:
            continue
        several = _SEVERAL.match(plain)
        if several and not isinstance(value, Iterable):
            reason = f"{entry.name} takes several values, such as [{value!r:.100}]"
            raise wrong_type(owner, {entry.name: value}, reason)
        # Text is a sequence of texts too, but one value is meant.
        for each in value if several and not isinstance(value, str) else (value,):
            _check_plain(owner, entry.name, several["entry"] if several else plain, each)


def _check_plain(owner: str, name: str, declared: str, value: object) -> None:
    if declared not in _PLAIN:
        return
    wanted, said = _PLAIN[declared]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise wrong_type(owner, {name: value}, f"{name} takes {said}, got {value!r:.100}")
    if isinstance(value, int | float) and not (abs(value) < 2**63 or math.isinf(value)):
        raise InvalidInput(f"{owner}: {name} takes {said}, got {value!r:.100}, which is out of every range")


def wrong_type(owner: str, settings: Mapping[str, Any], reason: object) -> InvalidInput:
    """Return the error that says why ``owner`` cannot be made."""
    shown = f"{dict(settings)}"
    shown = f"{shown[:300]} ..." if len(shown) > 300 else shown
    # What Python says of an argument that is not there.
    what = f"{reason}" if "missing" in f"{reason}" else f"a value has the wrong type ({reason})"
    return InvalidInput(f"{owner} cannot be made with {shown}: {what}")


def entries(text: str, section: str) -> dict[str, str]:
    """Return name -> meaning, on one line, of what a section of a docstring without indentation lists."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in text.splitlines():
        if not line.startswith(" "):
            inside, name = line == f"{section}:", ""
        elif inside and (entry := _ENTRY.fullmatch(line)):
            name = entry["name"]
            found[name] = entry["text"]
        elif name:
            found[name] += f" {line.strip()}"
    return found


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return setting -> what the class says of it under "Args", or else the nearest base that tells it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found |= entries(inspect.cleandoc(vars(base).get("__doc__") or ""), "Args")
    return found


def documented(kind: Any) -> str:
    """Return a docstring; that of a settings class tells of inherited settings too."""
    text = inspect.getdoc(kind) or ""
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return text
    told = meanings(kind)
    lines = [
        f"    {entry.name}: {told[entry.name]}" for entry in dataclasses.fields(kind) if entry.name in told
    ]
    blocks = [block for block in text.split("\n\n") if not block.startswith("Args:\n")]
    after = ("Raises:", "Source", "Departures")
    place = next((number for number, block in enumerate(blocks) if block.startswith(after)), len(blocks))
    if lines:
        blocks.insert(place, "\n".join(["Args:", *lines]))
    return "\n\n".join(blocks)
