"""Tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from expunge.results.comparisons import further_measures, seed_spreads
from expunge.results.page_tables import FURTHER_MEANING, SPREAD_MEANING, SPREADS, further_columns
from expunge.results.summary import (
    HIDDEN_MEANING,
    RECALIBRATED,
    RECALIBRATED_ENDING,
    SHOWN,
    Summary,
    shown_measures,
    summarise_forgetting,
)
from expunge.results.wording import (
    MISSING,
    count,
    counted,
    is_known,
    number,
    percent,
    printable,
    with_interval,
)

BEST, PARTLY = "•", "!"
"""Marks behind the best value, and behind one with failed seeds."""
_LONGEST_NAME = 32
"""Characters of a method's name that are kept on one line."""


@dataclass(frozen=True)
class MapTable:
    """The map for a terminal: one table if that fits, else one below the other for each regularity.

    A regularity with more rates than fit is cut further. The mean over the whole map stands in the last table.
    """

    summary: Summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables for the width there is."""
        regularities, rates = list(self.summary.regularity_labels), list(self.summary.discovery_labels)
        whole = self._table([(regularity, rates) for regularity in regularities], stacked=False)
        if _fits(whole, console, options):
            yield whole
            return
        parts: list[tuple[float, Sequence[float]]] = []
        for regularity in regularities:
            left: Sequence[float] = rates
            while left:
                size = len(left)
                while size > 1 and not _fits(self._table([(regularity, left[:size])]), console, options):
                    size -= 1
                parts.append((regularity, left[:size]))
                left = left[size:]
        for position, part in enumerate(parts):
            table = self._table([part], mean=position == len(parts) - 1)
            table.caption = None
            if position:
                table.title = None
            yield table
            yield Text()
        yield Text(_map_caption(self.summary), style="table.caption")

    def _table(
        self, groups: Sequence[tuple[float, Sequence[float]]], *, stacked: bool = True, mean: bool = True
    ) -> Table:
        summary = self.summary
        table = plain_table("Utility x Healed, %", _map_caption(summary))
        labels = summary.discovery_labels
        headings, columns = [], []
        for regularity, rates in groups:
            # Rich has no column that spans others, so the rates of one regularity share one, aligned by hand.
            heading, cells = "", [Text() for _ in summary.method]
            for rate in rates:
                texts = [_cell(summary, method, regularity, rate) for method in summary.method]
                width = max(len(labels[rate]) + 1, *(text.cell_len for text in texts))
                gap = " " if heading else ""
                heading += gap + f"{labels[rate]:>{width - 1}} "
                for text in texts:
                    text.align("right", width)
                cells = [before + gap + text for before, text in zip(cells, texts, strict=True)]
            label = summary.regularity_labels[regularity]
            headings.append(Text(f"{label:^{len(heading)}}\n{heading}"))
            columns.append(cells)
        if mean:
            headings.append(Text("mean of\nthe map" if stacked else "\n mean"))
            columns.append([_mean(summary, method) for method in summary.method])
        _add_methods(table, summary, headings, list(zip(*columns, strict=True)))
        return table


def cost_table(summary: Summary) -> Table:
    """Return quality beside cost, a row per method: means over its cells, and the largest memory."""
    again = summary.recalibrated
    caption = _sentences(
        _about(summary),
        "Means over the cells that are done; peak memory is the largest.",
        "ASR: triggered test images that reach the attacker's class, over the cells with poison; lower is better.",
        HIDDEN_MEANING if again else "",
        "Grads: gradients of single examples.",
    )
    shares = {"uxh": "U x H\n%", "healed": "Healed\n%", "utility": "Utility\n%", "asr": "ASR\n%"}
    if again:
        shares |= dict(zip(RECALIBRATED, ("U x H\nrecal.", "ASR\nrecal."), strict=True))
    columns = {
        **shares, "seconds": "s per\nrun", "sample_gradients": "grads\nper run", "peak_memory": "peak\nMB",
    }  # fmt: skip
    lines = [
        [
            *(percent(row.get(name, math.nan)) for name in shares),
            number(row["seconds"], ".1f"),
            count(row["sample_gradients"]),
            number(row["peak_memory"], ".0f", 1e-6),
        ]
        for row in summary.method.values()
    ]
    table = plain_table("Quality and cost", caption)
    _add_methods(
        table,
        summary,
        list(map(Text, columns.values())),
        [list(map(Text, line)) for line in lines],
        justify="right",
    )
    return table


def forgetting_tables(measured: pd.DataFrame) -> list[Table]:
    """Return one table for each forgetting task: methods by rising average gap, all values in percent.

    Raises:
        InvalidInput: no run of a forgetting task.
    """
    tables = []
    for task, found in summarise_forgetting(measured).items():
        table = Table(
            title=Text(f"Forget {printable(task)}, %", style="table.title"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption="95 % t-intervals over training seeds. Closer to retrain is better; forget below retrain's is "
            "over-forgetting. Avg. gap: mean of |value - retrain's| over test, retain, forget, forget test, MIA.",
            caption_justify="left",
        )
        names = shown_measures(found)
        table.add_column("method", no_wrap=True)
        for name in names:
            table.add_column(SHOWN[name], justify="right", no_wrap=True)
        table.add_column("s", justify="right")
        for method, row in found.iterrows():
            # Eight columns of intervals do not fit beside each other on a terminal of 80.
            between = "\n" if len(names) > 6 else ""
            cells = [with_interval(row[name, "mean"], row[name, "half_width"], between) for name in names]
            failed = f" ({row['failed', '']:.0f} failed)" if row["failed", ""] else ""
            table.add_row(Text(printable(method) + failed), *cells, number(row["seconds", "mean"], ".1f"))
        tables.append(table)
    return tables


def spread_tables(measured: pd.DataFrame) -> list[Table]:
    """Return a table for the map and one for each forgetting task; none unless unlearning seeds vary."""
    tables = []
    for (task, measure), found in seed_spreads(measured).groupby(["task", "measure"]):
        place = f", forget {printable(task)}" if task else ""
        table = plain_table(f"Spread over the seeds: {measure}{place}, %", SPREAD_MEANING)
        table.title_justify = "left"
        table.add_column("method", overflow="fold")
        # Eighty columns have no room for the numbers of seeds.
        columns = [column for column in SPREADS if column.heading != "seeds"]
        for column in columns[:-1]:
            table.add_column(column.heading, justify="right")
        table.add_column(columns[-1].heading, ratio=1)
        for row in found.itertuples():
            table.add_row(Text(printable(row.method)), *(column.cell(row).text for column in columns))
        tables.append(table)
    return tables


def further_table(measured: pd.DataFrame) -> Table | None:
    """Return the measures that no other table shows, beside the retrained model's; None where there are none.

    Parts of the recalibrated figures are left to the page and the files: the table of costs shows what they come to.
    """
    found = further_measures(measured)
    found = found[~found["measure"].str.endswith(RECALIBRATED_ENDING)]
    if not len(found):
        return None
    table = plain_table("Further measures", FURTHER_MEANING)
    table.add_column("measure", overflow="fold")
    table.add_column("method", overflow="fold")
    columns = further_columns(found)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for measure, rows in found.groupby("measure"):
        for position, row in enumerate(rows.itertuples()):
            name = Text("" if position else printable(measure))
            table.add_row(name, Text(printable(row.method)), *(column.cell(row).text for column in columns))
        table.add_section()
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


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    return console.measure(table, options=options.update(max_width=10_000)).maximum <= options.max_width


def _add_methods(
    table: Table,
    summary: Summary,
    headings: Sequence[Text],
    lines: Sequence[Sequence[Text]],
    justify: Any = "left",
) -> None:
    names = [
        Text(printable(method) + (" (oracle)" if row["oracle"] else ""))
        for method, row in summary.method.items()
    ]
    table.add_column(
        "\nmethod", overflow="fold", min_width=min(max(name.cell_len for name in names), _LONGEST_NAME)
    )
    for heading in headings:
        table.add_column(heading, justify=justify, no_wrap=justify == "left")
    first_oracle = summary.methods["oracle"].argmax() if summary.methods["oracle"].any() else 0
    for position, (name, row, line) in enumerate(zip(names, summary.method.values(), lines, strict=True)):
        if position and position == first_oracle:
            table.add_section()
        table.add_row(name, *line, style="dim" if row["oracle"] else None)


def _cell(summary: Summary, method: str, regularity: float, discovery: float) -> Text:
    """One value with a slot for the mark behind it."""
    cell = summary.cell.get((method, regularity, discovery))
    if cell is None or not (is_known(cell["uxh"]) or cell["failed"]):
        return Text(f"{MISSING} ", style="dim")
    if not is_known(cell["uxh"]):
        return Text("failed", style="red")
    text = Text(_value(summary, cell), style="bold green" if cell["best"] else "")
    text.append(BEST if cell["best"] else "" if cell["failed"] else " ")
    if cell["failed"]:
        text.append(PARTLY, style="red")
    return text


def _value(summary: Summary, cell: Mapping[str, Any]) -> str:
    if len(summary.seeds) == 1:
        return percent(cell["uxh"])
    spread = f"±{percent(cell['uxh_sd'], 0)}" if is_known(cell["uxh_sd"]) else ""
    return percent(cell["uxh"], 0) + spread


def _mean(summary: Summary, method: str) -> Text:
    row = summary.method[method]
    if not is_known(row["uxh"]):
        return Text(f"{MISSING:>5}", style="dim")
    text = Text(
        f"{percent(row['uxh']):>5}{BEST if row['best'] else ' '}", style="bold green" if row["best"] else ""
    )
    if row["cells"] < len(summary.places):
        text.append(f"{row['cells']}/{len(summary.places)}")
    return text


def _map_caption(summary: Summary) -> str:
    cells, methods = summary.cells, summary.methods
    partly = (cells["uxh"].notna() & (cells["failed"] > 0)).any()
    part = methods.loc[(methods["cells"] > 0) & (methods["cells"] < len(summary.places)), "cells"]
    return _sentences(
        _about(summary),
        "Columns: share of the corrupted examples that is known.",
        f"{BEST} and bold: best of its column, oracles apart." if cells["best"].any() else "",
        "±: standard deviation over the seeds." if cells["uxh_sd"].notna().any() else "",
        f"{PARTLY}: some seeds failed and are left out." if partly else "",
        f"{part.iloc[0]}/{len(summary.places)}: number of cells in a mean that lacks some."
        if len(part)
        else "",
    )


def _about(summary: Summary) -> str:
    return f"{printable(summary.data)}, {printable(summary.model)}, {counted(len(summary.seeds), 'seed')}."


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)
