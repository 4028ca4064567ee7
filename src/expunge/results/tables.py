"""Tables: for the terminal, and as LaTeX, CSV and Parquet."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from expunge.results.frame import measurements
from expunge.results.summary import (
    GAP,
    HIDDEN_MEANING,
    RECALIBRATED,
    SHOWN,
    Summary,
    check_against,
    compare,
    further_measures,
    seed_spreads,
    summarise,
    summarise_forgetting,
)
from expunge.results.sweeps import sort_into_sweeps
from expunge.results.wording import MISSING, counted, is_known, number, percent, printable, with_interval
from expunge.store.atomic import write_output
from expunge.store.record import Record
from expunge.store.spreadsheet import as_text

BEST, PARTLY = "•", "!"
"""Marks behind the best value, and behind one with failed seeds."""
SPREAD_MEANING = (
    "Mean ± 95 % t-interval over the training seeds, each the mean of its unlearning seeds. Two standard deviations, "
    "in points: between trainings, without the noise of unlearning, and between unlearnings of one training. More "
    "unlearning seeds do not replace training seeds. An average gap also varies with the retrained model."
)
CSV_FIELDS = (
    "method", "regularity", "discovery", "seed", "healed", "healed_known", "healed_unknown", "utility", "uxh", "asr",
    "seconds", "sample_gradients", "status", "data", "model", "task", "task_settings", "unlearning_seed",
)  # fmt: skip
"""Columns of results.csv; those of the measurements in :attr:`Record.metrics` follow."""

_LONGEST_NAME = 32
"""Characters of a method's name that are kept on one line."""
_MOST_COLUMNS = 12
"""Places of the map beside each other in LaTeX."""
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
_SPECIAL_LETTERS = re.compile("|".join(map(re.escape, _SPECIAL)))
_STYLES = {"best": "textbf:--rwrap;", "second": "underline:--rwrap;", "": ""}


# ---- terminal ----


def map_table(records: Iterable[Record]) -> MapTable:
    """Return Utility x Healed in percent, a row per method, grouped by regularity, then discovery rate.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    return MapTable(summarise(measurements(records)))


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
        lines: list[list[Text]] = [[] for _ in summary.method]
        headings = []
        for regularity, rates in groups:
            # Rich has no column that spans others, so the rates of one regularity share one, aligned by hand.
            heading, cells = "", [Text() for _ in summary.method]
            for rate in rates:
                texts = [_cell(summary, method, regularity, rate) for method in summary.method]
                width = max(len(labels[rate]) + 1, *(text.cell_len for text in texts))
                gap = " " if heading else ""
                heading += gap + f"{labels[rate]:>{width - 1}} "
                cells = [
                    before + gap + _right(text, width) for before, text in zip(cells, texts, strict=True)
                ]
            label = summary.regularity_labels[regularity]
            headings.append(Text(f"{label:^{len(heading)}}\n{heading}"))
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)
        if mean:
            headings.append(Text("mean of\nthe map" if stacked else "\n mean"))
            for line, method in zip(lines, summary.method, strict=True):
                line.append(_mean(summary, method))
        _add_methods(table, summary, headings, lines)
        return table


def cost_table(records: Iterable[Record]) -> Table:
    """Return quality beside cost, a row per method: means over its cells, and the largest memory.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    summary = summarise(measurements(records))
    again = has_recalibrated(summary)
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
            _thousands(row["sample_gradients"]),
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


def has_recalibrated(summary: Summary) -> bool:
    """Whether any run of a sweep was measured with normalisation statistics of the retain set too."""
    return RECALIBRATED[0] in summary.methods and bool(summary.methods[RECALIBRATED[0]].notna().any())


def forgetting_tables(records: Iterable[Record]) -> list[Table]:
    """Return one table for each forgetting task: methods by rising average gap, all values in percent.

    Raises:
        InvalidInput: no record of a forgetting task.
    """
    tables = []
    for task, found in summarise_forgetting(measurements(records)).items():
        table = Table(
            title=Text(f"Forget {printable(task)}, %", style="table.title"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption="95 % t-intervals over first trainings. Closer to retrain is better; forget below retrain's is "
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


def spread_tables(records: Sequence[Record]) -> list[Table]:
    """Return a table for the map and one for each forgetting task; none unless unlearning seeds vary."""
    tables = []
    for (task, measure), found in seed_spreads(measurements(records)).groupby(["task", "measure"]):
        place = f", forget {printable(task)}" if task else ""
        table = plain_table(f"Spread over the seeds: {measure}{place}, %", SPREAD_MEANING)
        table.title_justify = "left"
        table.add_column("\nmethod", overflow="fold")
        for heading in ("\nmean", "sd\ntraining", "sd\nunlearning"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("\nin words", ratio=1)
        for row in found.itertuples():
            table.add_row(
                Text(printable(row.method)),
                with_interval(row.mean, row.half_width),
                percent(row.sd_training),
                percent(row.sd_unlearning),
                row.in_words,
            )
        tables.append(table)
    return tables


def further_table(records: Iterable[Record]) -> Table | None:
    """Return the measures that no other table shows, beside the retrained model's; None where there are none."""
    found = further_measures(measurements(records))
    if not len(found):
        return None
    table = plain_table(
        "Further measures",
        "In the unit of the metric; ±: 95 % t-interval over the training seeds. Retrained: of a model trained on the "
        "retain set. Gap: mean of |value - retrained|. Floor: the gap of a second retrained model; a gap that is not "
        "above it is no larger than the noise of retraining.",
    )
    table.add_column("measure", overflow="fold")
    table.add_column("method", overflow="fold")
    beside = [name for name in ("retrained", "gap", "floor", "oracle") if found[name].notna().any()]
    for name in ("value", *beside):
        table.add_column(name, justify="right", no_wrap=True)
    for measure, rows in found.groupby("measure"):
        for position, row in enumerate(rows.itertuples()):
            value = number(row.mean, ".3g") + (f" ±{row.half_width:.2g}" if is_known(row.half_width) else "")
            cells = [number(getattr(row, name), ".3g") for name in beside]
            table.add_row(
                Text("" if position else printable(measure)), Text(printable(row.method)), value, *cells
            )
        table.add_section()
    return table


def shown_measures(found: pd.DataFrame) -> list[str]:
    """Return those of :data:`SHOWN` that some method of a forgetting task has."""
    return [name for name in SHOWN if (name, "mean") in found and found[name, "mean"].notna().any()]


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


def _right(text: Text, width: int) -> Text:
    padded = text.copy()
    padded.pad_left(width - text.cell_len)
    return padded


def _thousands(value: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        # From here on three digits round up to the next unit.
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return number(value, ".0f")


# ---- LaTeX ----


def latex(text: str) -> str:
    """Return ``text`` as LaTeX prints it."""
    return _SPECIAL_LETTERS.sub(lambda found: _SPECIAL[found[0]], printable(text))


def map_tabular(summary: Summary, title: str) -> str:
    """Return Utility x Healed in percent by method and cell; one tabular, or one for each regularity.

    Best in bold and second underlined by the mean of the column, oracles apart. Needs the package booktabs.
    """
    whole = len(summary.places) <= _MOST_COLUMNS
    regularities = list(summary.regularity_labels)
    about = f"{title}; {counted(len(summary.seeds), 'seed')}" + (
        ", 95 % t-intervals" if len(summary.seeds) > 1 else ""
    )
    parts = [f"% Utility x Healed, percent: {printable(about)}. Needs \\usepackage{{booktabs}}."]
    parts += [
        _map_part(summary, group) for group in ([regularities] if whole else [[r] for r in regularities])
    ]
    return "\n".join(parts) + "\n"


def _map_part(summary: Summary, regularities: Sequence[float]) -> str:
    rates = summary.discovery_labels
    texts: dict[tuple[str, str], list[str]] = {}
    marks: dict[tuple[str, str], list[str]] = {}
    open_to_all = ~summary.methods["oracle"]
    for regularity in regularities:
        for rate, label in rates.items():
            heading = (latex(summary.regularity_labels[regularity]), latex(label))
            cells = [summary.cell.get((method, regularity, rate), {}) for method in summary.method]
            values = pd.Series([cell.get("uxh") for cell in cells], summary.methods.index, dtype=float)
            texts[heading] = [_latex_cell(cell) for cell in cells]
            marks[heading] = _marks(values.where(open_to_all))
    if len(regularities) == len(summary.regularity_labels):
        heading = ("", "mean")
        texts[heading] = [_latex_value(row["uxh"], row["half_width"]) for row in summary.method.values()]
        marks[heading] = summary.methods["mark"].fillna("").to_list()
    lines = _tabular(texts, marks, [latex(method) for method in summary.method])
    spans = [
        rf"\cmidrule(lr){{{2 + len(rates) * part}-{1 + len(rates) * (part + 1)}}}"
        for part in range(len(regularities))
    ]
    lines.insert(3, "".join(spans))
    if open_to_all.any() and not open_to_all.all():
        lines.insert(6 + int(open_to_all.sum()), r"\midrule")
    return "\n".join(lines)


def forgetting_tabular(found: Mapping[str, pd.DataFrame], title: str) -> str:
    """Return one tabular for each forgetting task, rows by rising average gap."""
    parts = [f"% Forgetting, percent: {printable(title)}. Needs \\usepackage{{booktabs}}."]
    for task, values in found.items():
        texts, marks = {}, {}
        for name in shown_measures(values):
            heading = ("", latex(SHOWN[name].replace("\n", " ")))
            pairs = zip(values[name, "mean"], values[name, "half_width"], strict=True)
            texts[heading] = [_latex_value(mean, half) for mean, half in pairs]
            marks[heading] = _marks(-values[name, "mean"]) if name == GAP else [""] * len(values)
        lines = _tabular(texts, marks, list(map(latex, values.index)))
        del lines[2]  # the upper heading is empty
        parts += [f"% {printable(task)}", *lines]
    return "\n".join(parts) + "\n"


def _tabular(
    texts: Mapping[tuple[str, str], list[str]], marks: Mapping[tuple[str, str], list[str]], rows: list[str]
) -> list[str]:
    """Return the lines of a tabular; headings, rows and texts are LaTeX already."""
    columns = pd.MultiIndex.from_tuples(texts, names=(None, "method"))
    # Positions in place of names: two methods may print alike.
    table = pd.DataFrame(list(zip(*texts.values(), strict=True)), columns=columns)
    styles = pd.DataFrame(
        [[_STYLES[mark] for mark in line] for line in zip(*marks.values(), strict=True)], columns=columns
    )
    styler = table.style.apply(lambda _: styles, axis=None).format_index(lambda row: rows[row], axis="index")
    text: str = styler.to_latex(hrules=True, column_format="l" + "r" * len(columns), multicol_align="c")
    return text.rstrip("\n").splitlines()


def _latex_cell(cell: Mapping[str, Any]) -> str:
    if not is_known(cell.get("uxh")):
        return "failed" if cell.get("failed") else "--"
    return _latex_value(cell["uxh"], cell["uxh_half_width"])


def _latex_value(mean: float, half: float) -> str:
    if not is_known(mean):
        return "--"
    return percent(mean) + (rf"\,$\pm$\,{percent(half)}" if is_known(half) else "")


def _marks(values: pd.Series[float]) -> list[str]:
    """Mark the best and the second; values that print alike share their place."""
    printed = (100 * values).round(1)
    levels = sorted(printed.dropna().unique(), reverse=True)
    names = dict(zip(levels, ("best", "second"), strict=False))
    return [names.get(value, "") for value in printed]


# ---- files ----


def write_tables(records: Iterable[Record], folder: Path, against: str | None = None) -> list[Path]:
    """Write the tables of every sweep and return the paths; Parquet only where pyarrow is installed.

    ``measurements-*``: the long table itself, see :func:`expunge.results.frame.measurements`; ``map-*.tex``: Utility x
    Healed by cell; ``cells-*``: a row for each method and cell with mean, standard deviation, half-width of the
    95 % t-interval and number of seeds; ``forgetting-*``: the same for forgetting tasks; ``paired-*``: every method
    against one; ``spread-*``: standard deviations between training seeds and between unlearning seeds, where the
    latter vary; ``references-*``: further measures beside the retrained model's value and the noise floor. Fractions
    stay fractions, times are seconds, memory is bytes.

    Args:
        records: of a store.
        folder: where the files go.
        against: the method that the others are compared with; by default the best of each sweep.

    Raises:
        StoreError: a file cannot be written.
        InvalidInput: nothing can be compared with ``against``.
    """
    sweeps = sort_into_sweeps(records)
    compared = [compare(sweep.table, against) for sweep in sweeps]
    check_against(compared, against, [record.method for sweep in sweeps for record in sweep.records])
    written = []
    for sweep, pairs in zip(sweeps, compared, strict=True):
        frames = {
            "measurements": sweep.table,
            "paired": pairs,
            "spread": seed_spreads(sweep.table),
            "references": further_measures(sweep.table),
        }
        texts = {}
        if sweep.corruption:
            summary = summarise(measurements(sweep.corruption, sweep.title))
            texts["map"] = map_tabular(summary, sweep.title)
            order = list(summary.methods.index)
            cells = summary.cells.drop(columns=["best", "rank", "ranked"]).reset_index()
            frames["cells"] = cells.sort_values(
                "method", key=lambda names, order=order: names.map(order.index), kind="stable"
            )
        if sweep.forgetting:
            found = summarise_forgetting(sweep.table)
            texts["forgetting"] = forgetting_tabular(found, sweep.title)
            frames["forgetting"] = pd.DataFrame(_forgetting_rows(found))
        for name, text in texts.items():
            written.append(write_output(folder / f"{name}-{sweep.slug}.tex", text.encode(), "table"))
        for name, frame in frames.items():
            written += _write_frame(frame, folder / f"{name}-{sweep.slug}")
    return written


def _forgetting_rows(found: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for task, values in found.items():
        for method, row in values.iterrows():
            for name in sorted(set(row.index.get_level_values(0)) - {"failed"}):
                if is_known(row[name, "mean"]):
                    yield {
                        "task": task,
                        "method": method,
                        "measurement": name,
                        "mean": row[name, "mean"],
                        "half_width": row[name, "half_width"],
                        "seeds": int(row[name, "n"]),
                        "failed": int(row["failed", ""]),
                    }


def _write_frame(frame: pd.DataFrame, stem: Path) -> list[Path]:
    if not len(frame):
        return []
    text = frame.map(as_text).to_csv(index=False, lineterminator="\n")
    written = [write_output(stem.with_name(f"{stem.name}.csv"), text.encode(), "table")]
    if importlib.util.find_spec("pyarrow") is not None:
        packed = io.BytesIO()
        frame.to_parquet(packed, index=False)
        written.append(write_output(stem.with_name(f"{stem.name}.parquet"), packed.getvalue(), "table"))
    return written


def write_csv(records: Iterable[Record], path: str | Path) -> None:
    """Write :data:`CSV_FIELDS` and the named measurements of ``records``, in their order; UTF-8.

    A header line names the columns. Every measurement that some record has is one, in the order of their
    names; the settings of a task are JSON. Fractions stay fractions and times are seconds, with up to six
    decimals and no exponent; what was not measured is empty. The file appears whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    rows = list(records)
    flat = [record.flat_metrics() for record in rows]
    measured = sorted({name for found in flat for name in found} - set(CSV_FIELDS))
    table = pd.DataFrame(
        [
            [*(getattr(record, name) for name in CSV_FIELDS), *(found.get(name) for name in measured)]
            for record, found in zip(rows, flat, strict=True)
        ],
        columns=[*CSV_FIELDS, *measured],
        dtype=object,
    )
    text = table.map(lambda cell: as_text(_csv_cell(cell))).to_csv(index=False, lineterminator="\n")
    write_output(path, text.encode("utf-8"), "results")


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)
