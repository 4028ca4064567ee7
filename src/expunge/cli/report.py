"""``expunge report``: a store as one HTML page, and its figures and tables for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer
from rich.markup import escape

from expunge.cli.screen import Screen
from expunge.errors import StoreError

if TYPE_CHECKING:
    from expunge.store.record import Record
    from expunge.store.weights import WeightStore


def report_command(
    store: str = typer.Argument(
        ..., help="Folder written by map or bench, an SQLite file of records, or a database URL."
    ),
    out: Path = typer.Option(Path("report.html"), help="The page to write."),
    figures: Path | None = typer.Option(None, help="Also write the maps and fronts here, as SVG and PDF."),
    tables: Path | None = typer.Option(
        None, help="Also write tables here, as LaTeX and CSV, and as Parquet where pyarrow is installed."
    ),
    title: str = typer.Option("expunge report", help="Heading of the page."),
    against: str | None = typer.Option(
        None, help="Method the others are compared with in pairs; by default the best of each sweep."
    ),
) -> None:
    """Make one HTML page of a store: map, costs, tables, methods, failures, provenance.

    The page opens without a server and sends no request. It is built from the store alone; nothing is run.
    """
    console = Screen()
    found = read_store(store)
    records = found.records

    from expunge.results.charts import write_figures
    from expunge.results.method_facts import method_facts
    from expunge.results.original_models import learned_shares
    from expunge.results.page import build_page
    from expunge.results.tables import write_tables
    from expunge.store.atomic import write_output

    learned = learned_shares(records, found.weights)
    facts = {name: method_facts(name) for name in sorted({record.method for record in records})}
    page = build_page(
        records, facts, learned=learned, grids=found.grids, title=title, against=against
    ).encode("utf-8")
    write_output(out, page, "report")
    console.print(f"wrote {escape(str(out))}: {len(records)} records, {len(page) / 1e6:.1f} MB")
    if figures is not None:
        written = write_figures(records, figures, learned)
        console.print(f"wrote {len(written)} figures to {escape(str(figures))}")
    if tables is not None:
        written = write_tables(records, tables, against)
        console.print(f"wrote {len(written)} tables to {escape(str(tables))}")
        if not any(path.suffix == ".parquet" for path in written):
            console.print("no Parquet files: they need pyarrow; install it with: pip install pyarrow")


class Found(NamedTuple):
    """What a store holds: its records, the grids that were run into it, and its weights where there are some."""

    records: list[Record]
    grids: list[str]
    weights: WeightStore | None


def read_store(store: str) -> Found:
    """Return what a store holds; weights only of one that is a folder."""
    from expunge.store.database import Database

    weights = None
    place: str | Path = store
    if "://" not in store:
        path = Path(store).expanduser()
        place = path / "store.sqlite" if path.is_dir() else path
        # Opened without a look, a misspelt path would become an empty store.
        if not place.is_file():
            raise StoreError(
                f"there is no store {store!r}: expected a folder with store.sqlite as 'expunge map --out' writes "
                "it, an SQLite file, or a database URL"
            )
        folder = place.parent / "weights"
        if folder.is_dir():
            from expunge.store.weights import WeightStore

            weights = WeightStore(folder)
    with Database(place) as database:
        return Found(database.records(), database.grids(), weights)
