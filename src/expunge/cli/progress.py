"""Progress lines: of a sweep, and what they share with those of other long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from expunge.sweep.execute import Status

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""


def progress_bar(console: Console, *lead: ProgressColumn) -> Progress:
    """Return a bar with its share, the time gone and left, and what is being done; ``lead`` stands before it."""
    return Progress(
        SpinnerColumn(),
        *lead,
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.description}"),
        console=console,
        disable=not console.is_terminal,  # where it cannot be redrawn, its last state says nothing
    )


@contextmanager
def ends_on_interrupt(console: Console, said: str) -> Iterator[None]:
    """Run a block; an interruption prints what was ``said`` and ends with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"\n{said}")
        raise typer.Exit(INTERRUPTED) from None


def run_with_progress(console: Console, start: Callable[[Callable[[Status], None]], Status]) -> Status:
    """Carry out ``start``, which reports to the function it is given; an interruption ends with exit code 130."""
    with progress_bar(console, TextColumn("{task.fields[cells]}")) as progress:
        bar: TaskID = progress.add_task("starting", total=1.0, cells="")

        def show(status: Status) -> None:
            finished = status.present + status.done + status.failed + status.elsewhere
            progress.update(
                bar,
                completed=status.share,
                description=escape(status.doing or "training the first models"),
                cells=f"{finished}/{status.total} cells",
            )
            if not console.is_terminal and status.doing:
                console.print(
                    f"{finished}/{status.total} {status.share:4.0%}  {escape(status.doing)}", highlight=False
                )

        with ends_on_interrupt(
            console, "interrupted; finished cells are kept, the same command goes on from there"
        ):
            final = start(show)
        progress.update(bar, completed=1.0, description="")
    return final
