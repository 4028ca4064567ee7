"""The terminal: what the commands write on it, the progress of long work, and exit codes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from expunge.evaluation.verdict import Verdict

DID_NOT_WORK = SOME_FAILED = NO_LIST = 3
"""A repair did not work, or there was nothing to do; some cell of a sweep failed; no usable list could be made."""
UNDECIDED = 4
"""Nothing that was measured decides it."""
INTERRUPTED = 130
"""Ctrl-C ended the command, as shells have it."""

_SILENCE = 30.0
"""Seconds after which something is said where no bar is drawn."""

Result = TypeVar("Result")


class Screen(Console):
    """A console without colours, unless they are asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, **settings)

    def plain(self, text: str) -> None:
        """Print ``text`` as it is; a long line is left to the terminal to break, for it may be copied."""
        self.print(text, markup=False, soft_wrap=True)

    def dim(self, text: str) -> None:
        """Print a remark."""
        self.print(f"[dim]{escape(text)}[/]")

    def item(self, text: str, mark: str = "-") -> None:
        """Print an entry of a list, with markup."""
        grid = Table.grid(padding=(0, 1))
        grid.add_row(mark, text)
        self.print(Padding(grid, (0, 0, 0, 1)))

    def findings(self, verdict: Verdict) -> None:
        """Print what a verdict rests on, and what to do."""
        for finding in verdict.findings:
            lead = f"{finding.outcome}: " if len(verdict.outcomes) > 1 else ""
            self.item(escape(lead + finding.sentence))
        self.print(escape(verdict.advice))

    def entry(self, name: str, text: str) -> None:
        """Print what something is, behind its name, with markup."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=8)
        grid.add_column(overflow="fold")
        grid.add_row(name, text)
        self.print(grid)


def plain_table(
    title: str | None = None, *, left: tuple[str, ...] = (), right: tuple[str, ...] = ()
) -> Table:
    """Return a table without lines: columns of text, then columns of numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def with_progress(
    console: Screen, start: Callable[[Callable[[float, str], None]], Result], interrupted: str = ""
) -> Result:
    """Carry out ``start`` and show what it reports: the share that is done, and what is being done.

    A console that is no terminal gets a line whenever something else is being done, and every half minute. After
    Ctrl-C ``interrupted`` is said and the exit code is 130; without it the interruption is passed on.
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


def code_of(verdict: Verdict) -> int:
    """Return 0 where it worked, at least in part, 3 where it did not or there was little to do, 4 if undecided."""
    if verdict.did_not_work or verdict.outcomes == ("little to repair",):
        return DID_NOT_WORK
    return UNDECIDED if verdict.outcomes == ("undecided",) else 0
