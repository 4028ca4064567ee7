"""Tables in LaTeX, for the package booktabs: best in bold, second best underlined."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from expunge.report.comparison import Standing, half_width
from expunge.report.forgetting import SHOWN, ForgettingSummary, rank
from expunge.report.summary import MethodSummary, Summary, printable

_MOST_COLUMNS = 12
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
_SPECIAL_LETTERS = re.compile("|".join(map(re.escape, _SPECIAL)))
_NONE = "--"


def latex(text: str) -> str:
    """Return ``text`` as LaTeX prints it."""
    return _SPECIAL_LETTERS.sub(lambda found: _SPECIAL[found[0]], printable(text))


def map_tabular(summary: Summary, overall: Mapping[str, Standing], title: str) -> str:
    """Return Utility x Healed in percent by method and cell; one tabular, or one for each regularity.

    Bold and underline are by the mean of the column, oracles apart.
    """
    whole = len(summary.places) <= _MOST_COLUMNS
    groups = [summary.regularities] if whole else [(regularity,) for regularity in summary.regularities]
    seeds = len(summary.seeds)
    about = f"{title}; {seeds} seed{'s' if seeds > 1 else ''}" + (", 95 % t-intervals" if seeds > 1 else "")
    parts = [f"% Utility x Healed, percent: {printable(about)}. Needs \\usepackage{{booktabs}}."]
    parts += [_map_part(summary, overall, group) for group in groups]
    return "\n".join(parts) + "\n"


def forgetting_tabular(summaries: Sequence[ForgettingSummary], title: str) -> str:
    """Return one tabular for each forgetting task, rows by rising average gap."""
    parts = [f"% Forgetting, percent: {printable(title)}. Needs \\usepackage{{booktabs}}."]
    for task in dict.fromkeys(found.task for found in summaries):
        rows = sorted((found for found in summaries if found.task == task), key=rank)
        names = [name for name in SHOWN if any(name in row.values for row in rows)]
        gaps = {row.method: row.values["average_gap"].mean for row in rows if "average_gap" in row.values}
        marks = _marks({method: -gap for method, gap in gaps.items()})
        lines = [f"% {printable(task)}", rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule"]
        lines += [_row(["method", *(latex(SHOWN[name].replace("\n", " ")) for name in names)]), r"\midrule"]
        for row in rows:
            cells = [latex(row.method)]
            for name in names:
                text = (
                    _value(row.values[name].mean, row.values[name].half_width)
                    if name in row.values
                    else _NONE
                )
                cells.append(_marked(text, marks.get(row.method, "")) if name == "average_gap" else text)
            lines.append(_row(cells))
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n".join(parts) + "\n"


def _map_part(summary: Summary, overall: Mapping[str, Standing], regularities: Sequence[float]) -> str:
    rates = summary.discovery_labels
    names = summary.regularity_labels
    width = len(rates)
    with_mean = len(regularities) == len(summary.regularities)
    columns = "l" + "r" * (width * len(regularities)) + ("r" if with_mean else "")
    spans = [rf"\multicolumn{{{width}}}{{c}}{{{latex(names[regularity])}}}" for regularity in regularities]
    rules = "".join(
        rf"\cmidrule(lr){{{2 + width * number}-{1 + width * (number + 1)}}}"
        for number in range(len(regularities))
    )
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(["", *spans, *([""] if with_mean else [])]),
        rules,
        _row(
            [
                "method",
                *[latex(label) for _ in regularities for label in rates.values()],
                *(["mean"] if with_mean else []),
            ]
        ),
        r"\midrule",
    ]
    places = [(regularity, rate) for regularity in regularities for rate in rates]
    marks = {
        place: _marks(
            {
                method.method: cell.uxh.mean
                for method in summary.methods
                if not method.oracle
                and (cell := summary.cells.get((method.method, *place))) is not None
                and cell.uxh is not None
            }
        )
        for place in places
    }
    for number, method in enumerate(summary.methods):
        if method.oracle and number and not summary.methods[number - 1].oracle:
            lines.append(r"\midrule")
        cells = [_cell(summary, method, place, marks[place].get(method.method, "")) for place in places]
        if with_mean:
            standing = overall[method.method]
            found = standing.interval
            cells.append(
                _NONE if found is None else _marked(_value(found.mean, found.half_width), standing.mark)
            )
        lines.append(_row([latex(method.method), *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _cell(summary: Summary, method: MethodSummary, place: tuple[float, float], mark: str) -> str:
    cell = summary.cells.get((method.method, *place))
    if cell is None or (cell.uxh is None and not cell.failed):
        return _NONE
    if cell.uxh is None:
        return "failed"
    return _marked(_value(cell.uxh.mean, half_width(cell.uxh)), mark)


def _value(mean: float, half: float | None) -> str:
    return f"{100 * mean:.1f}" if half is None else rf"{100 * mean:.1f}\,$\pm$\,{100 * half:.1f}"


def _marks(values: Mapping[str, float]) -> dict[str, str]:
    """Method -> "best" or "second"; values that print alike share their place."""
    levels = sorted({round(100 * value, 1) for value in values.values()}, reverse=True)
    names = dict(zip(levels, ("best", "second"), strict=False))
    return {method: names.get(round(100 * value, 1), "") for method, value in values.items()}


def _marked(text: str, mark: str) -> str:
    if mark == "best":
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if mark == "second" else text


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
