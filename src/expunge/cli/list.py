"""``expunge list``: the names in a table."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from expunge.errors import UnknownName
from expunge.registry import TABLES


def list_names(
    table: str = typer.Argument("", help=f"One of {', '.join(TABLES)}; all of them if left out."),
) -> None:
    """List what there is: methods, models, data sets, metrics."""
    if table and table not in TABLES:
        raise UnknownName(f"unknown table {table!r} (known: {', '.join(TABLES)})")
    console = Console()
    for name, registry in TABLES.items():
        if table in ("", name):
            console.print(
                _listing(name, registry.names(), [registry.summary(entry) for entry in registry.names()])
            )


def _listing(title: str, names: list[str], summaries: list[str]) -> Table:
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold cyan", no_wrap=True)
    shown.add_column()
    for name, summary in zip(names, summaries, strict=True):
        shown.add_row(name, summary)
    return shown
