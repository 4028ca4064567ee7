"""``expunge list``: the names in a table."""

from __future__ import annotations

import typer
from rich.table import Table

from expunge.cli.screen import Screen
from expunge.errors import UnknownName
from expunge.registry import TABLES


def list_names(
    table: str = typer.Argument("", help=f"One of {', '.join(TABLES)}; all of them if left out."),
    markdown: bool = typer.Option(False, help="Print the methods as a Markdown table, as in the README."),
) -> None:
    """List what there is: methods, models, data sets, metrics.

    ``expunge list methods`` also tells what each needs, what it touches and what it costs.
    """
    if table and table not in TABLES:
        raise UnknownName(f"unknown table {table!r} (known: {', '.join(TABLES)})")
    if markdown:
        from expunge.results.method_facts import markdown_table

        typer.echo(markdown_table())
        return
    console = Screen()
    if table == "methods":
        console.print(_methods())
        return
    for name, registry in TABLES.items():
        if table in ("", name):
            console.print(
                _listing(name, registry.names(), [registry.summary(entry) for entry in registry.names()])
            )


def _methods() -> Table:
    from expunge.results.method_facts import installed

    shown = Table(
        title="methods",
        title_justify="left",
        box=None,
        pad_edge=False,
        caption="Cost: epochs over the training set as a share of one retraining, with default settings. Names "
        "marked * need an original model that was trained for them. 'expunge describe NAME' tells more.",
        caption_justify="left",
    )
    for heading in ("name", "year", "needs", "touches", "cost"):
        shown.add_column(heading, overflow="fold", style="bold cyan" if heading == "name" else "")
    for found in installed():
        name = found.name + ("*" if found.preparation else "")
        shown.add_row(name, found.year, ", ".join(found.needs) or "nothing", found.touches, found.cost)
    return shown


def _listing(title: str, names: list[str], summaries: list[str]) -> Table:
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold cyan", no_wrap=True)
    shown.add_column()
    for name, summary in zip(names, summaries, strict=True):
        shown.add_row(name, summary)
    return shown
