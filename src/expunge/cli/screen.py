"""The terminal, as the commands write on it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table


class Screen(Console):
    """A console that colours nothing unless it is told to."""

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
