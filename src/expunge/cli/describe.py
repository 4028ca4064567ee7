"""``expunge describe``: everything the code says about a name."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from typing import Any

import typer
from rich.markup import escape

from expunge.cli.screen import Screen, plain_table
from expunge.errors import UnknownName, near_miss
from expunge.registry import TABLES
from expunge.settings import documented

_WRAPPED = 84
"""A line of a docstring that its next word would make longer than this was broken for want of room."""
_ITEM = re.compile(r"\s*(?P<mark>- |\d+\. |(?P<field>[\w*]+:( |$)))")
"""How an item of a list, or a setting, begins."""


def describe(
    name: str = typer.Argument(..., help="A method, model, data set or metric; see 'expunge list'."),
) -> None:
    """Describe a method, model, data set or metric: formula, settings, needs, source."""
    for registry in TABLES.values():
        if name in registry.targets:
            _show(registry.kind, name, registry.get(name))
            return
    known = [entry for registry in TABLES.values() for entry in registry.names()]
    raise UnknownName(f"unknown name {name!r}{near_miss(name, known)} (known: {', '.join(known)})")


def _show(kind: str, name: str, target: Any) -> None:
    console = Screen()
    console.print(f"[bold cyan]{escape(name)}[/]  [dim]{kind}[/]\n")
    text = reflowed(documented(target) or "no description", console.width)
    console.print(escape(text))
    needs = getattr(target, "needs", None)
    if needs is not None:
        console.print(f"\n[bold]Needs[/]    {escape(str(needs))}")
        console.print(f"[bold]Touches[/]  {escape(target.touches)}")
    if dataclasses.is_dataclass(target):
        space = target.search_space() if hasattr(target, "search_space") else {}
        searched = ("searched by 'expunge tune'",) if space else ()
        table = plain_table("Settings", left=("name", "default", *searched))
        table.columns[0].style = "cyan"
        for entry in dataclasses.fields(target):
            row = [entry.name, escape(repr(_default(entry)))]
            table.add_row(*row, *([str(space.get(entry.name, ""))] if space else []))
        console.print()
        console.print(table)
    preparation = getattr(target, "preparation", "")
    if preparation:
        console.print(f"\n[bold]Prepared[/] by the original model's Recipe({preparation}=...)")
    reference, line = getattr(target, "reference", None), getattr(target, "source", "")
    if reference is not None:
        line = f"{reference.authors}: {reference.title} ({reference.year}), {reference.where}"
    if line:
        console.print(f"\n[bold]Source[/]   {escape(line)}")


def reflowed(text: str, width: int) -> str:
    """Return a docstring with its paragraphs wrapped again at ``width``; formulas and lists keep their lines."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "`")
    lines: list[tuple[str, str]] = []  # and the indent of what follows on
    length = 0
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        words = line.split(maxsplit=1)
        item = _ITEM.match(line)
        if words and length and not item and length + 1 + len(words[0]) > _WRAPPED:
            lines[-1] = (f"{lines[-1][0]} {line.lstrip()}", lines[-1][1])
        else:
            deeper = 0 if item is None else 4 if item["field"] else len(item["mark"])
            lines.append((line, indent + " " * deeper))
        length = len(line)
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for line, indent in lines
    )


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
