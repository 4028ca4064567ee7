"""What ``expunge map`` and ``expunge bench`` share: run the cells, then say what came of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from expunge.cli.plan import count_of
from expunge.cli.progress import with_progress
from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.engine import Engine
    from expunge.store.record import Record
    from expunge.store.store import Store
    from expunge.sweep.execute import Status
    from expunge.sweep.grid import Grid
    from expunge.sweep.plan import Plan
    from expunge.sweep.trackers import Choice, Trackers

SOME_FAILED = 3
"""Exit code of a sweep some of whose cells have failed."""
LOG: Any = typer.Option(
    [],
    "--log",
    help="Also log each finished cell as a run: tensorboard, mlflow or wandb, each with :TARGET for a folder "
    "or server instead of a place below OUT; or module:Class. Repeatable.",
)


@dataclass(frozen=True)
class Swept:
    """What a sweep left.

    Attributes:
        status: how it went.
        records: every record of its cells, those of earlier runs included.
        logged: where runs were logged -> how many.
    """

    status: Status
    records: list[Record]
    logged: dict[str, int]


def check_workers(workers: int | None) -> None:
    """Raise :class:`InvalidInput` for a number of workers that is not positive."""
    if workers is not None and workers < 1:
        raise InvalidInput(f"--workers must be at least 1, got {workers}")


def default_workers(workers: int | None, device: str) -> int:
    """Return the number asked for, else one per core, or one on an accelerator."""
    if workers is not None:
        return workers
    return 1 if device != "cpu" else os.cpu_count() or 1


def choose_trackers(texts: list[str]) -> list[Choice]:
    """Read what ``--log`` names; nothing is opened yet."""
    from expunge.sweep.trackers import Choice

    return [Choice(text) for text in texts]


def open_trackers(console: Console, choices: list[Choice], out: Path) -> Trackers:
    """Open trackers before any work, so that a missing package costs none."""
    from expunge.sweep.trackers import Trackers

    return Trackers(choices, out, lambda text: console.print(f"[yellow]warning:[/] {escape(text)}"))


def run_sweep(
    console: Console,
    plan: Plan,
    store: Store,
    out: Path,
    *,
    workers: int,
    keep_weights: bool,
    retry_failed: bool,
    trackers: Trackers,
    grid: Grid,
    limit: int | None = None,
    engine: Engine | None = None,
) -> Swept:
    """Run what is missing of ``plan``, at most ``limit`` cells, and write results.csv; ``engine`` by default local.

    The ``grid`` that the plan is of is kept in the store, for a report to say how its cells are run again.
    """
    from expunge.results.tables import write_csv
    from expunge.sweep.execute import execute

    store.database.add_grid(grid.text())
    status = with_progress(
        console,
        lambda report: execute(
            plan,
            store,
            workers=workers,
            keep_weights=keep_weights,
            retry_failed=retry_failed,
            report=lambda status: report(status.share, _doing(status)),
            limit=limit,
            engine=engine,
            recorded=trackers.log,
        ),
        "interrupted; finished cells are kept, the same command goes on from there",
    )
    wanted = {cell.key for cell in plan.cells}
    records = [record for record in store.database.records() if record.key in wanted]
    write_csv(records, out / "results.csv")
    return Swept(status, records, trackers.logged)


def _doing(status: Status) -> str:
    finished = status.present + status.done + status.failed + status.elsewhere
    return f"{finished}/{status.total} cells: {status.doing or 'training the first models'}"


def finish(console: Console, swept: Swept, written: str) -> None:
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
        f"\n{status.done} cells run, {status.present} were there{elsewhere}, {status.failed} failed",
        highlight=False,
    )
    console.print(f"wrote {written}", highlight=False, markup=False)
    for place, count in swept.logged.items():
        console.print(f"logged {count_of(count, 'run')} to {place}", highlight=False, markup=False)
    if len(failed) > status.failed:
        count = len(failed) - status.failed
        console.print(
            f"{count} of those that were there had failed; --retry-failed runs them again", highlight=False
        )
    if failed:
        raise typer.Exit(SOME_FAILED)


def _place(record: Record) -> str:
    if record.regularity is None or record.discovery is None:
        return record.task
    return f"regularity {record.regularity:g}, discovery {record.discovery:g}"
