"""Tables for the terminal: the map of a sweep and what the methods cost."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from expunge.report.summary import CellSummary, MethodSummary, Summary, printable, summarise
from expunge.store.record import Record

BEST, PARTLY, MISSING = "•", "!", "–"
"""Marks behind the best value, behind one with failed seeds, and in place of an absent one."""


def map_table(records: Iterable[Record]) -> Table:
    """Return Utility x Healed in percent, a row per method, grouped by regularity, then discovery rate.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    summary = summarise(records)
    table = _table("Utility x Healed, %", _map_caption(summary))
    table.add_column("\nmethod", overflow="fold")
    rates = summary.discovery_labels
    columns = {
        place: [_cell(summary, method.method, *place) for method in summary.methods]
        for place in summary.places
    }
    # Rich has no column that spans others, so the rates of one regularity share a column, aligned by hand.
    widths = {
        place: max(len(rates[place[1]]) + 1, *(text.cell_len for text in texts))
        for place, texts in columns.items()
    }
    for regularity, label in summary.regularity_labels.items():
        rate_line = " ".join(
            f"{rates[rate]:>{widths[regularity, rate] - 1}} " for rate in summary.discoveries
        )
        table.add_column(Text(f"{label:^{len(rate_line)}}\n{rate_line}"), overflow="fold")
    table.add_column("\n mean", overflow="fold")
    for number, method in enumerate(summary.methods):
        groups = [
            Text(" ").join(
                _right(columns[regularity, rate][number], widths[regularity, rate])
                for rate in summary.discoveries
            )
            for regularity in summary.regularities
        ]
        _add(table, summary, method, [*groups, _mean(summary, method)])
    return table


def cost_table(records: Iterable[Record]) -> Table:
    """Return quality beside cost, a row per method: means over its cells, and the largest memory.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    summary = summarise(records)
    caption = _sentences(
        _about(summary),
        "Means over the cells that are done; memory is the largest.",
        "ASR: triggered test images that reach the attacker's class, over the cells with poison; lower is "
        "better.",
        "Gradients are counted per example.",
    )
    table = _table("Quality and cost", caption)
    table.add_column("\nmethod", overflow="fold")
    for heading in ("U x H\n%", "Healed\n%", "Utility\n%", "ASR\n%"):
        table.add_column(heading, justify="right")
    for heading in ("seconds\nper run", "gradients\nper run", "memory\nMB"):
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


def _table(title: str, caption: str) -> Table:
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
    name = Text(printable(method.method))
    if method.oracle:
        name.append(" (oracle)")
    table.add_row(name, *cells, style="dim" if method.oracle else None)


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
