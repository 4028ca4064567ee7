"""What ``expunge map`` and ``expunge bench`` share: run the cells, then say what came of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import RenderableType
from rich.markup import escape

from expunge.cli.options import Device
from expunge.cli.screen import SOME_FAILED, Screen, with_progress
from expunge.errors import InvalidInput
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.engine import Engine
    from expunge.store.record import Record
    from expunge.store.store import Store
    from expunge.sweep.execute import Status
    from expunge.sweep.grid import Grid
    from expunge.sweep.plan import Plan
    from expunge.sweep.trackers import Trackers


class Swept(NamedTuple):
    """How a sweep went, every record of its cells (of earlier runs too), and where how many runs were logged."""

    status: Status
    records: list[Record]
    logged: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a sweep is run, as it is written on the command line."""

    data_root: Annotated[
        Path | None, typer.Option(help="Folder the data lies in; by default $EXPUNGE_DATA.")
    ] = None
    device: Device = None
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; by default one per core, one on a GPU.")
    ] = None
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Also log each finished cell as a run: tensorboard, mlflow or wandb, each with :TARGET for a folder "
            "or server instead of a place below OUT; or module:Class. Repeatable."
        ),
    ] = None
    keep_weights: Annotated[bool, typer.Option(help="Also store every unlearned model.")] = False
    retry_failed: Annotated[bool, typer.Option(help="Run failed cells again.")] = False

    def check(self) -> None:
        """Raise what is wrong with it, before anything is loaded or trained."""
        from expunge.sweep.trackers import find_tracker

        if self.workers is not None and self.workers < 1:
            raise InvalidInput(f"--workers must be at least 1, got {self.workers}")
        for text in self.log or ():
            find_tracker(text)

    def processes(self, device: str) -> int:
        """Return the number of workers asked for, else one per core, or one on an accelerator."""
        return self.workers or (1 if device != "cpu" else os.cpu_count() or 1)

    def trackers(self, console: Screen, out: Path) -> Trackers:
        """Open the trackers, before any work: a missing package then costs none."""
        from expunge.sweep.trackers import Trackers

        return Trackers(
            self.log or (), out, lambda text: console.print(f"[yellow]warning:[/] {escape(text)}")
        )

    def run(
        self, console: Screen, grid: Grid, plan: Plan, store: Store, out: Path, trackers: Trackers, *, workers: int,
        limit: int | None = None, engine: Engine | None = None,
    ) -> Swept:  # fmt: skip
        """Run what is missing of ``plan``, at most ``limit`` cells, write results.csv and print the tables.

        The ``grid`` that the plan is of is kept in the store, for a report to say how its cells are run again.
        """
        from expunge.results.tables import write_csv
        from expunge.sweep.execute import execute

        store.database.add_grid(grid.text())
        status = with_progress(
            console,
            lambda report: execute(
                plan, store, workers=workers, keep_weights=self.keep_weights, retry_failed=self.retry_failed,
                report=lambda status: report(status.share, _doing(status)), limit=limit, engine=engine,
                recorded=trackers.log,
            ),
            "interrupted; finished cells are kept, the same command goes on from there",
        )  # fmt: skip
        wanted = {cell.key for cell in plan.cells}
        records = [record for record in store.database.records() if record.key in wanted]
        write_csv(records, out / "results.csv")
        _print_tables(console, records)
        return Swept(status, records, trackers.logged)


def _print_tables(console: Screen, records: list[Record]) -> None:
    from expunge.results import terminal
    from expunge.results.sweeps import sort_into_sweeps

    sweeps = sort_into_sweeps(records)
    for sweep in sweeps:
        console.print()
        if len(sweeps) > 1:
            console.print(f"[bold]{escape(sweep.title)}[/]")
        for note in sweep.notes:
            console.print(escape(note))
        if sweep.on_map:
            tables: list[RenderableType] = [
                terminal.MapTable(sweep.summary),
                terminal.cost_table(sweep.summary),
            ]
        else:
            tables = [*terminal.forgetting_tables(sweep.table)]
        tables += terminal.spread_tables(sweep.table)
        if (further := terminal.further_table(sweep.table)) is not None:
            tables.append(further)
        for table in tables:
            console.print(table)
            console.print()


def _doing(status: Status) -> str:
    finished = status.present + status.done + status.failed + status.elsewhere
    return f"{finished}/{status.total} cells: {status.doing or 'training the original models'}"


def finish(console: Screen, swept: Swept, written: str) -> None:
    """Print warnings, failures and counts; end with exit code 3 if a cell has failed, now or earlier."""
    status = swept.status
    for warning in status.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}; the cells that start from it say little")
    failed = [record for record in swept.records if record.status == "failed"]
    for record in failed:
        last = record.error.strip().splitlines()[-1]
        console.print(
            f"[red]failed:[/] {escape(record.method)}, {escape(_place(record))}, seed {record.seed}: {escape(last)}"
        )
    elsewhere = f", {status.elsewhere} were run elsewhere" if status.elsewhere else ""
    console.print(
        f"\n{status.done} cells run, {status.present} were there{elsewhere}, {status.failed} failed"
    )
    console.plain(f"wrote {written}")
    for place, count in swept.logged.items():
        console.plain(f"logged {counted(count, 'run')} to {place}")
    if len(failed) > status.failed:
        count = len(failed) - status.failed
        console.print(f"{count} of those that were there had failed; --retry-failed runs them again")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _place(record: Record) -> str:
    if record.regularity is None or record.discovery is None:
        return record.task
    return f"regularity {record.regularity:g}, discovery {record.discovery:g}"
