"""The table ``[methods.NAME]`` of a TOML file: made, and replaced without touching the rest."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from expunge.errors import InvalidInput
from expunge.report.toml import toml_key, toml_value


def table_text(name: str, values: Mapping[str, Any], comment: str) -> str:
    """Return the TOML table ``[methods.NAME]`` with its comment.

    Raises:
        InvalidInput: a value that TOML has no form for.
    """
    lines = [f"[methods.{toml_key(name)}]"]
    if comment:
        lines.append(f"# {comment}")
    lines += [f"{toml_key(key)} = {toml_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def replace_table(text: str, name: str, values: Mapping[str, Any], comment: str) -> str:
    """Return ``text`` with exactly the table ``[methods.NAME]`` replaced, or added at the end.

    A later pattern such as ``[methods."*"]`` would win over the table, so the table is moved to the end if
    one that matches the method comes after it.

    Raises:
        InvalidInput: text that is not TOML, or the method's settings in another form than such a table.
    """
    before = _parsed(text)
    lines = text.splitlines(keepends=True)
    forms = "|".join({re.escape(form) for form in (name, json.dumps(name), f"'{name}'")})
    wanted = re.compile(rf"\s*\[\s*methods\s*\.\s*(?:{forms})\s*\]\s*(?:#.*)?$")
    header = re.compile(r"\s*\[\[?[^\[\],=]+\]\]?\s*(?:#.*)?$")
    first = next((number for number, line in enumerate(lines) if wanted.match(line)), None)
    table = table_text(name, values, comment)
    if first is None or _overruled(before, name):
        if first is not None:
            end = _end(lines, first, header)
            del lines[first:end]
        kept = "".join(lines).rstrip("\n")
        after = f"{kept}\n\n{table}" if kept else table
    else:
        lines[first : _end(lines, first, header)] = [table]
        after = "".join(lines)
    try:
        same = _without(_parsed(after), name) == _without(before, name)
    except InvalidInput:
        same = False
    if not same:
        raise InvalidInput(
            f"the settings of {name!r} in that file are not a plain table [methods.{toml_key(name)}], so they "
            "cannot be replaced without touching the rest; write them as such a table, or leave out --write"
        )
    return after


def _end(lines: list[str], first: int, header: re.Pattern[str]) -> int:
    """Return where a table ends; comments above the next header belong to that one."""
    following = (number for number in range(first + 1, len(lines)) if header.match(lines[number]))
    end = next(following, len(lines))
    while end > first + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return end


def _overruled(content: Mapping[str, Any], name: str) -> bool:
    patterns = list(content.get("methods", {}))
    later = patterns[patterns.index(name) + 1 :] if name in patterns else []
    return any(fnmatchcase(name, pattern) for pattern in later)


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(
            f"the file to be written to is not valid TOML: {error}; correct it first"
        ) from error


def _without(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return all but one method's settings."""
    methods = {key: value for key, value in content.get("methods", {}).items() if key != name}
    rest = {key: value for key, value in content.items() if key != "methods"}
    return {**rest, "methods": methods}
