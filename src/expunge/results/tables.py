"""Tables in files: LaTeX, CSV and Parquet."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from expunge.results.comparisons import compare_each, further_measures, seed_spreads
from expunge.results.summary import GAP, SHOWN, Summary, shown_measures, summarise_forgetting
from expunge.results.sweeps import sort_into_sweeps
from expunge.results.wording import counted, is_known, percent, printable
from expunge.store.atomic import write_output
from expunge.store.record import Record
from expunge.store.spreadsheet import as_text, csv_text

CSV_FIELDS = (
    "method", "regularity", "discovery", "seed", "healed", "healed_known", "healed_unknown", "utility", "uxh", "asr",
    "seconds", "sample_gradients", "status", "data", "model", "task", "task_settings", "unlearning_seed",
)  # fmt: skip
"""Columns of results.csv; those of the measurements in :attr:`Record.metrics` follow."""
_MOST_COLUMNS = 12
"""Places of the map beside each other in LaTeX."""
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
_SPECIAL_LETTERS = re.compile("|".join(map(re.escape, _SPECIAL)))
_STYLES = {"best": "textbf:--rwrap;", "second": "underline:--rwrap;", "": ""}


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
    written = []
    for sweep, pairs in zip(sweeps, compare_each(sweeps, against), strict=True):
        frames = {
            "measurements": sweep.table,
            "paired": pairs,
            "spread": seed_spreads(sweep.table),
            "references": further_measures(sweep.table),
        }
        texts = {}
        if sweep.on_map:
            summary = sweep.summary
            texts["map"] = map_tabular(summary, sweep.title)
            order = list(summary.methods.index)
            cells = summary.cells.drop(columns=["best", "rank", "ranked"]).reset_index()
            frames["cells"] = cells.sort_values(
                "method", key=lambda names, order=order: names.map(order.index), kind="stable"
            )
        else:
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
    lines = [
        [*(getattr(record, name) for name in CSV_FIELDS), *(found.get(name) for name in measured)]
        for record, found in zip(rows, flat, strict=True)
    ]
    text = csv_text([[*CSV_FIELDS, *measured], *(map(_csv_cell, line) for line in lines)])
    write_output(path, text.encode("utf-8"), "results")


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)
