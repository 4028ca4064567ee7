"""Values as TOML text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from expunge.errors import InvalidInput


def toml_key(name: str) -> str:
    """Return a key, quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def toml_value(value: Any) -> str:
    """Return a value on one line; entries of a table that are ``None`` are left out, since TOML has no such value.

    Raises:
        InvalidInput: a value that has no form in TOML.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        pairs = (
            f"{toml_key(key)} = {toml_value(entry)}" for key, entry in value.items() if entry is not None
        )
        return "{ " + ", ".join(pairs) + " }"
    raise InvalidInput(f"{value!r} has no form in TOML; set it in the file by hand")
