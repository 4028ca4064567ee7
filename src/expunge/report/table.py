"""Tables for the terminal: the map of a sweep and what the methods cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from expunge.report.summary import CellSummary, MethodSummary, Summary, printable, summarise
from expunge.store.record import Record

BEST, PARTLY, MISSING = "•", "!", "–"
"""Marks behind the best value, behind one with failed seeds, and in place of an absent one."""
_LONGEST_NAME = 32
"""Characters of a method's name that are kept on one line."""


def map_table(records: Iterable[Record]) -> MapTable:
    """Return Utility x Healed in percent, a row per method, grouped by regularity, then discovery rate.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    return MapTable(summarise(records))


@dataclass(frozen=True)
class MapTable:
    """The map for a terminal: one table if that fits, else one below the other for each regularity.

    A regularity with more rates than fit is cut further. The mean over the whole map stands in the last table.

    Args:
        summary: what is shown.
    """

    summary: Summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables for the width there is."""
        summary = self.summary
        regularities, rates = summary.regularities, summary.discoveries
        whole = self._table([(regularity, rates) for regularity in regularities], stacked=False)
        if _fits(whole, console, options):
            yield whole
            return
        parts: list[tuple[float, Sequence[float]]] = []
        for regularity in regularities:
            left: Sequence[float] = rates
            while left:
                count = len(left)
                while count > 1 and not _fits(self._table([(regularity, left[:count])]), console, options):
                    count -= 1
                parts.append((regularity, left[:count]))
                left = left[count:]
        for number, part in enumerate(parts):
            table = self._table([part], mean=number == len(parts) - 1)
            table.caption = None
            if number:
                table.title = None
            yield table
            yield Text()
        yield Text(_map_caption(summary), style="table.caption")

    def _table(
        self, groups: Sequence[tuple[float, Sequence[float]]], *, stacked: bool = True, mean: bool = True
    ) -> Table:
        summary = self.summary
        table = plain_table("Utility x Healed, %", _map_caption(summary))
        _add_names(table, summary)
        labels = summary.discovery_labels
        lines: list[list[Text]] = [[] for _ in summary.methods]
        for regularity, rates in groups:
            # Rich has no column that spans others, so the rates of one regularity share one, aligned by hand.
            heading, cells = "", [Text() for _ in summary.methods]
            for rate in rates:
                texts = [_cell(summary, method.method, regularity, rate) for method in summary.methods]
                width = max(len(labels[rate]) + 1, *(text.cell_len for text in texts))
                gap = " " if heading else ""
                heading += gap + f"{labels[rate]:>{width - 1}} "
                cells = [
                    before + gap + _right(text, width) for before, text in zip(cells, texts, strict=True)
                ]
            label = summary.regularity_labels[regularity]
            table.add_column(Text(f"{label:^{len(heading)}}\n{heading}"), no_wrap=True)
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)
        if mean:
            table.add_column("mean of\nthe map" if stacked else "\n mean", no_wrap=True)
            for line, method in zip(lines, summary.methods, strict=True):
                line.append(_mean(summary, method))
        for method, line in zip(summary.methods, lines, strict=True):
            _add(table, summary, method, line)
        return table


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    return console.measure(table, options=options.update(max_width=10_000)).maximum <= options.max_width


def cost_table(records: Iterable[Record]) -> Table:
    """Return quality beside cost, a row per method: means over its cells, and the largest memory.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    summary = summarise(records)
    caption = _sentences(
        _about(summary),
        "Means over the cells that are done; peak memory is the largest.",
        "ASR: triggered test images that reach the attacker's class, over the cells with poison; lower is "
        "better.",
        "Grads: gradients of single examples.",
    )
    table = plain_table("Quality and cost", caption)
    _add_names(table, summary)
    for heading in ("U x H\n%", "Healed\n%", "Utility\n%", "ASR\n%"):
        table.add_column(heading, justify="right")
    for heading in ("s per\nrun", "grads\nper run", "peak\nMB"):
        table.add_column(heading, justify="right")
    for method in summary.methods:
        cells = [
            _number(method.uxh, 100, ".1f"),
            _number(method.healed, 100, ".1f"),
            _number(method.utility, 100, ".1f"),
            _number(method.asr, 100, ".1f"),
            _number(method.seconds, 1, ".1f"),
            MISSING if method.sample_gradients is None else _thousands(method.sample_gradients),
            _number(method.peak_memory, 1e-6, ".0f"),
        ]
        _add(table, summary, method, [Text(cell) for cell in cells])
    return table


def plain_table(title: str, caption: str) -> Table:
    """Return an empty table in the style of all that are printed."""
    return Table(
        title=Text(title, style="bold"),
        caption=Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        header_style="",
    )


def _add(table: Table, summary: Summary, method: MethodSummary, cells: list[Text]) -> None:
    first_oracle = next((other for other in summary.methods if other.oracle), None)
    if method is first_oracle and table.row_count:
        table.add_section()
    table.add_row(_name(method), *cells, style="dim" if method.oracle else None)


def _add_names(table: Table, summary: Summary) -> None:
    longest = max(_name(method).cell_len for method in summary.methods)
    table.add_column("\nmethod", overflow="fold", min_width=min(longest, _LONGEST_NAME))


def _name(method: MethodSummary) -> Text:
    return Text(printable(method.method) + (" (oracle)" if method.oracle else ""))


def _cell(summary: Summary, method: str, regularity: float, discovery: float) -> Text:
    """One value with a slot for the mark behind it."""
    cell = summary.cells.get((method, regularity, discovery))
    if cell is None or (cell.uxh is None and not cell.failed):
        return Text(f"{MISSING} ", style="dim")
    if cell.uxh is None:
        return Text("failed", style="red")
    best = method in summary.best[regularity, discovery]
    text = Text(_value(summary, cell), style="bold green" if best else "")
    text.append(BEST if best else "" if cell.failed else " ")
    if cell.failed:
        text.append(PARTLY, style="red")
    return text


def _value(summary: Summary, cell: CellSummary) -> str:
    if cell.uxh is None:
        return MISSING
    if len(summary.seeds) == 1:
        return f"{100 * cell.uxh.mean:.1f}"
    spread = "" if cell.uxh.sd is None else f"±{100 * cell.uxh.sd:.0f}"
    return f"{100 * cell.uxh.mean:.0f}{spread}"


def _mean(summary: Summary, method: MethodSummary) -> Text:
    if method.uxh is None:
        return Text(f"{MISSING:>5}", style="dim")
    best = method.method in summary.best_mean
    number = f"{100 * method.uxh:>5.1f}{BEST if best else ' '}"
    text = Text(number, style="bold green" if best else "")
    if method.cells < len(summary.places):
        text.append(f"{method.cells}/{len(summary.places)}")
    return text


def _map_caption(summary: Summary) -> str:
    cells = summary.cells.values()
    spread = any(cell.uxh is not None and cell.uxh.sd is not None for cell in cells)
    partly = any(cell.uxh is not None and cell.failed for cell in cells)
    part = next((method for method in summary.methods if 0 < method.cells < len(summary.places)), None)
    return _sentences(
        _about(summary),
        "Columns: share of the corrupted examples that is known.",
        f"{BEST} and bold: best of its column, oracles apart." if any(summary.best.values()) else "",
        "±: standard deviation over the seeds." if spread else "",
        f"{PARTLY}: some seeds failed and are left out." if partly else "",
        f"{part.cells}/{len(summary.places)}: number of cells in a mean that lacks some." if part else "",
    )


def _about(summary: Summary) -> str:
    count = len(summary.seeds)
    return f"{printable(summary.data)}, {printable(summary.model)}, {count} seed{'s' if count > 1 else ''}."


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _right(text: Text, width: int) -> Text:
    padded = text.copy()
    padded.pad_left(width - text.cell_len)
    return padded


def _number(value: float | None, factor: float, form: str) -> str:
    return MISSING if value is None else f"{factor * value:{form}}"


def _thousands(count: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        # From here on three digits round up to the next unit.
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
