"""The progress of long work, and what an interruption ends with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from expunge.cli.exit_codes import INTERRUPTED
from expunge.cli.screen import Screen

_SILENCE = 30.0
"""Seconds after which something is said where no bar is drawn."""

Result = TypeVar("Result")


def with_progress(
    console: Screen, start: Callable[[Callable[[float, str], None]], Result], interrupted: str = ""
) -> Result:
    """Carry out ``start`` and show what it reports: the share that is done, and what is being done.

    Args:
        console: where it is shown; one that is no terminal gets a line whenever something else is being done, and every
            half minute.
        start: the work; it is given the function to report to.
        interrupted: what is said after Ctrl-C, which then ends with exit code 130; without it the interruption is
            passed on.
    """
    columns = (
        SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("[dim]{task.description}"),
    )  # fmt: skip
    # Where a bar cannot be redrawn, its last state says nothing.
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=1.0)
        last, told, begun = "", 0.0, time.monotonic()

        def show(share: float, doing: str) -> None:
            nonlocal last, told
            progress.update(bar, completed=share, description=escape(doing))
            now = time.monotonic()
            if not console.is_terminal and doing and (doing != last or now - told >= _SILENCE):
                known = doing == last and share > 0
                left = f", about {(now - begun) * (1 - share) / share:.0f} s left" if known else ""
                console.print(f"{share:4.0%}  {escape(doing)}{left}", soft_wrap=True)
                told = now
            last = doing

        try:
            result = start(show)
        except KeyboardInterrupt:
            if not interrupted:
                raise
            console.print(f"\n{interrupted}")
            raise typer.Exit(INTERRUPTED) from None
        progress.update(bar, description="")
    return result
