"""``expunge describe``: everything the code says about a name."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from expunge.errors import UnknownName, near_miss
from expunge.registry import TABLES


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
    console = Console()
    console.print(f"[bold cyan]{escape(name)}[/]  [dim]{kind}[/]\n")
    console.print(escape(inspect.getdoc(target) or "no description"), highlight=False)
    needs = getattr(target, "needs", None)
    if needs is not None:
        console.print(f"\n[bold]Needs[/]    {escape(str(needs))}")
        console.print(f"[bold]Touches[/]  {escape(target.touches)}")
    if dataclasses.is_dataclass(target):
        space = target.search_space() if hasattr(target, "search_space") else {}
        table = Table(title="Settings", title_justify="left", box=None, pad_edge=False)
        table.add_column("name", style="cyan")
        table.add_column("default")
        if space:
            table.add_column("searched by 'expunge tune'")
        for entry in dataclasses.fields(target):
            row = [entry.name, escape(repr(_default(entry)))]
            table.add_row(*row, *([str(space.get(entry.name, ""))] if space else []))
        console.print()
        console.print(table)
    preparation = getattr(target, "preparation", "")
    if preparation:
        console.print(
            f"\n[bold]Prepared[/] by the first training: Recipe({preparation}=...)", highlight=False
        )
    source = getattr(target, "reference", None)
    if source is not None:
        line = f"{source.authors}: {source.title} ({source.year}), {source.where}"
        console.print(f"\n[bold]Source[/]   {escape(line)}", highlight=False)


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
