"""HTML built from elements, so that text from outside is escaped wherever it enters."""

from __future__ import annotations

import html
from collections.abc import Iterable

from expunge.results.wording import printable

_VOID = ("br", "col", "hr", "input", "meta")


class Html(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


Content = Html | str | int | None


def element(tag: str, *content: Content, **attributes: str | int | bool | None) -> Html:
    """Return ``<tag attributes>content</tag>``; content that is not :class:`Html` is escaped.

    An attribute's underscores become hyphens, a trailing one is dropped (``class_``); ``True`` stands for
    an attribute without a value, ``None`` and ``False`` leave it out.
    """
    opening = "".join(
        f" {_attribute(name)}" if value is True else f' {_attribute(name)}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{opening}>")
    return Html(f"<{tag}{opening}>{joined(content)}</{tag}>")


def joined(parts: Iterable[Content]) -> Html:
    """Return the parts one after the other, escaped where they are not HTML."""
    return Html(
        "".join(part if isinstance(part, Html) else escape(str(part)) for part in parts if part is not None)
    )


def escape(text: str) -> str:
    """Return ``text`` for use between tags or in a quoted attribute; line breaks stay."""
    lines = text.splitlines()
    return html.escape("\n".join(printable(line) for line in lines), quote=True)


def _attribute(name: str) -> str:
    return name.removesuffix("_").replace("_", "-")
