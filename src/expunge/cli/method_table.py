"""The table ``[methods.NAME]`` of a TOML file: made, and replaced without touching the rest."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Comment, InlineTable, Table, Whitespace

from expunge.errors import InvalidInput


def table_text(name: str, values: Mapping[str, Any], comment: str) -> str:
    """Return the TOML table ``[methods.NAME]`` with its comment.

    Raises:
        InvalidInput: a value that TOML has no form for.
    """
    return replace_table("", name, values, comment)


def replace_table(text: str, name: str, values: Mapping[str, Any], comment: str) -> str:
    """Return ``text`` with exactly the table ``[methods.NAME]`` replaced, or added at the end.

    A later pattern such as ``[methods."*"]`` would win over the table, so the table is moved to the end if
    one that matches the method comes after it.

    Raises:
        InvalidInput: text that is not TOML, the method's settings in another form than such a table, or a value
            that TOML has no form for.
    """
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise InvalidInput(
            f"the file to be written to is not valid TOML: {error}; correct it first"
        ) from error
    methods = document.get("methods", {})
    made = _table(values, comment)
    there = methods.get(name)
    if isinstance(methods, InlineTable) or not (
        there is None or (isinstance(there, Table) and not there.is_super_table())
    ):
        raise InvalidInput(
            f"the settings of {name!r} in that file are not a plain table [methods.{name}], so they cannot be "
            "replaced without touching the rest; write them as such a table, or leave out --write"
        )
    if there is not None and not _overruled(list(methods), name):
        body = there.value.body
        last = max((place for place, (key, _) in enumerate(body) if key is not None), default=-1)
        # What follows the last setting are comments of the next table.
        for _, item in body[last + 1 :]:
            if isinstance(item, Comment | Whitespace):
                made.add(item)
        made.add(tomlkit.ws(""))  # else a blank line is added, which parts a comment from its table
        methods[name] = made
        return tomlkit.dumps(document)
    if there is not None:
        del methods[name]
    alone = tomlkit.table(is_super_table=True).append(name, made)
    added = tomlkit.dumps(tomlkit.document().append("methods", alone))
    kept = tomlkit.dumps(document).rstrip("\n")
    return f"{kept}\n\n{added}" if kept else added


def _table(values: Mapping[str, Any], comment: str) -> Table:
    made = tomlkit.table()
    if comment:
        made.add(tomlkit.comment(comment))
    for key, value in values.items():
        try:
            made.append(key, _item(value))
        except TOMLKitError as error:
            raise InvalidInput(f"{value!r} has no form in TOML; set it in the file by hand") from error
    return made


def _item(value: Any) -> Any:
    """A value on one line; entries of a table that are ``None`` are left out, since TOML has no such value."""
    if isinstance(value, Mapping):
        made = tomlkit.inline_table()
        made.update({key: _item(entry) for key, entry in value.items() if entry is not None})
        return made
    return tomlkit.item(list(value) if isinstance(value, tuple) else value)


def _overruled(patterns: list[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns[patterns.index(name) + 1 :])
