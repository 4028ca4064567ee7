"""``expunge list``: the names in a table."""

from __future__ import annotations

import typer
from rich.table import Table

from expunge.cli.screen import Screen, plain_table
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
            shown = plain_table(name, left=("", ""))
            shown.show_header = False
            shown.columns[0].style, shown.columns[0].no_wrap = "bold cyan", True
            for entry in registry.names():
                shown.add_row(entry, registry.summary(entry))
            console.print(shown)


def _methods() -> Table:
    from expunge.results.method_facts import installed

    shown = plain_table("methods")
    shown.caption_justify = "left"
    shown.caption = (
        "Cost: epochs over the training set as a share of one retraining, with default settings. Names marked * need "
        "an original model that was trained for them. 'expunge describe NAME' tells more."
    )
    for heading in ("name", "year", "needs", "touches", "cost"):
        shown.add_column(heading, overflow="fold", style="bold cyan" if heading == "name" else "")
    for found in installed():
        name = found.name + ("*" if found.preparation else "")
        shown.add_row(name, found.year, ", ".join(found.needs) or "nothing", found.touches, found.cost)
    return shown
