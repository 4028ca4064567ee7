"""Details shown when a cell of the page is clicked: numbers, runs, curves, provenance, the command that repeats it."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from expunge.results.frame import task_settings
from expunge.results.summary import REFERENCE, Cell, Summary
from expunge.results.sweeps import recipe_text, seed_text, settings_text
from expunge.results.wording import count, duration, is_known, percent, printable
from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name, regularity_value

MAP_COLUMNS = {
    "uxh": "U × H %",
    "healed": "Healed %",
    "healed_known": "known %",
    "healed_unknown": "unknown %",
    "utility": "Utility %",
    "asr": "ASR %",
    "corruption_learned": "wrong labels kept %",
    "seconds": "s",
    "sample_gradients": "gradients",
    "peak_memory": "MB",
}
"""Field of a record -> heading in the table of a cell's runs."""
RECALIBRATED_COLUMNS = {
    "uxh_recalibrated": "U × H recalibrated %",
    "healed_recalibrated": "Healed recalibrated %",
    "asr_recalibrated": "ASR recalibrated %",
}
"""The same for the numbers with normalisation statistics of the retain set."""
_COSTS = {"seconds": 1.0, "sample_gradients": 1.0, "peak_memory": 1e-6}

# Curves are most of the page: what all of them may hold together, about seven bytes a number.
_CURVE_NUMBERS = 170_000
_CURVE_ROWS = (400, 200, 100, 50, 25, 12, 6)


class Grids:
    """The resolved grids of a store, made of their TOML."""

    def __init__(self, texts: Sequence[str]) -> None:
        names = (
            ["grid.toml"] if len(texts) == 1 else [f"grid-{number}.toml" for number, _ in enumerate(texts, 1)]
        )
        self.files = dict(zip(names, texts, strict=True))
        """Name of a file -> its text."""
        self._content = {name: tomllib.loads(text) for name, text in self.files.items()}

    def command(self, records: Sequence[Record], method_of: Mapping[str, str]) -> str | None:
        """Return the ``expunge bench`` command for the cell of ``records``, None where no grid has them all.

        Args:
            records: of one method and task.
            method_of: label under which a record is listed -> name of its method.
        """
        first = records[0]
        method = method_of[first.method]
        file = next(
            (
                name
                for name, content in self._content.items()
                if all(_has(content, record, method) for record in records)
            ),
            None,
        )
        if file is None:
            return None
        only = [f"method={method}"]
        if "recipes" in self._content[file]:
            only.append(f"model={first.model}")
        if first.regularity is not None and first.discovery is not None:
            name = regularity_name(first.regularity)  # rounds what has no name
            exact = name if regularity_value(name) == first.regularity else repr(first.regularity)
            only += [f"regularity={exact}", f"discovery={first.discovery!r}"]
        else:
            only.append(f"task={first.task}")
            only += [
                f"{name}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
                for name, value in task_settings(first).items()
                if value is not None and not isinstance(value, bool)
            ]
        words = ["expunge", "bench", file, "--only", ",".join(only)]
        if device := first.provenance.get("device"):
            words += ["--device", device]
        return shlex.join(words)


def _has(content: Mapping[str, Any], record: Record, method: str) -> bool:
    """Whether a grid runs a record's method, with its settings, on its task, data and model, with its seed."""
    settings = {key: value for key, value in record.settings.items() if value is not None}
    setups = content.get("recipes") or [{**content.get("recipe", {}), "methods": content.get("methods", {})}]
    return (
        method in content["run"]
        and record.seed in content["seeds"]
        and record.data.startswith(content["data"]["name"])
        and any(_is_of(task, record) for task in content.get("tasks", ()))
        and any(
            setup["methods"].get(method, {}) == settings and setup.get("model") == record.model
            for setup in setups
        )
    )


def _is_of(task: Mapping[str, Any], record: Record) -> bool:
    # A task from outside is named by its class.
    return (":" in task["kind"] or task["kind"] == record.task) and all(
        record.task_settings.get(name) == value for name, value in task.items() if name != "kind"
    )


class Cells:
    """Collects the cells of a page and packs them as JSON; numbers are rounded to four digits."""

    def __init__(self, grids: Grids) -> None:
        self.grids = grids
        self._cells: list[dict[str, Any]] = []
        self._runs: list[tuple[Sequence[Record], Sequence[str]]] = []
        self._shared: dict[str, tuple[int, Any]] = {}

    def add(
        self,
        title: str,
        lines: Iterable[str],
        records: Sequence[Record],
        columns: Mapping[str, str],
        method_of: Mapping[str, str],
    ) -> int:
        """Take up a cell and return its number.

        Args:
            title: heading of its panel.
            lines: what the tooltip says.
            records: its runs.
            columns: key -> heading of the table of runs; keys are fields of a record or names in its metrics.
            method_of: see :meth:`Grids.command`.
        """
        self._cells.append(
            {
                "title": printable(title),
                "lines": list(map(printable, lines)),
                "columns": self._once(list(columns.values())),
                "command": self.grids.command(records, method_of),
            }
        )
        self._runs.append((records, list(columns)))
        return len(self._cells) - 1

    def pack(self) -> tuple[dict[str, Any], int | None]:
        """Return the JSON, and the number of rows the curves were thinned to if they were."""
        logs = [record.log for records, _ in self._runs for record in records if record.log]
        kept = next(
            (
                rows
                for rows in _CURVE_ROWS
                if sum(min(len(log), rows) * max(map(len, log)) for log in logs) <= _CURVE_NUMBERS
            ),
            _CURVE_ROWS[-1],
        )
        cells = [
            {**cell, "runs": [self._run(record, names, kept) for record in records]}
            for cell, (records, names) in zip(self._cells, self._runs, strict=True)
        ]
        thinned = any(len(log) > kept for log in logs)
        return {"cells": cells, "shared": [value for _, value in self._shared.values()]}, (
            kept if thinned else None
        )

    def _once(self, value: Any) -> int:
        """The number of a value that many runs have in common and that is stored once."""
        return self._shared.setdefault(json.dumps(value, sort_keys=True), (len(self._shared), value))[0]

    def _run(self, record: Record, columns: Sequence[str], rows: int) -> dict[str, Any]:
        provenance = dict(record.provenance)
        run: dict[str, Any] = {
            "seed": seed_text(record),
            "values": [_column(record, name) for name in columns],
            "key": record.key,
            "created": provenance.pop("created", ""),
            "from": self._once(
                {
                    "settings": settings_text(record.settings) or "none",
                    "task": f"{record.task}: {settings_text(task_settings(record))}",
                    "recipe": recipe_text(record),
                    "computed by": settings_text(provenance),
                }
            ),
            "model": self._once(record.model_key),
            "task": self._once(record.task_key),
        }
        if record.per_class:
            run["classes"] = [None if value is None else _rounded(value) for value in record.per_class]
        if record.log:
            run["curve"] = _curve(record, rows)
        if record.status != "done":
            run["status"], run["error"] = record.status, record.error
        return run


def _column(record: Record, name: str) -> float | None:
    value = getattr(record, name) if name in MAP_COLUMNS else record.number(name)
    if value is None:
        return None
    return float(f"{value * _COSTS.get(name, 100.0):.4g}")


def _curve(record: Record, most: int) -> dict[str, list[float | None]]:
    """The log as columns, at most ``most`` rows, the first and the last among them."""
    rows = record.log
    if len(rows) > most:
        rows = [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {
        printable(name): [None if row.get(name) is None else _rounded(row[name]) for row in rows]
        for name in names
    }


def _rounded(value: float) -> float:
    number = float(f"{value:.4g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def map_lines(summary: Summary, where: Cell, weak: float | None) -> list[str]:
    """Return what the tooltip of a cell of the map says.

    Args:
        summary: of its sweep.
        where: method, regularity, discovery.
        weak: the least share of the corruption that its original models had learned, where that is too little.
    """
    cell = summary.cell[where]
    if not is_known(cell["uxh"]):
        lines = ["failed" if cell["failed"] else "skipped"]
    else:
        half = cell["uxh_half_width"]
        spread = (
            f" ± {percent(half)} (95 % t-interval, {cell['seeds']} seeds)" if is_known(half) else ", one seed"
        )
        lines = [
            f"{percent(cell['uxh'])} %{spread}",
            f"healed {percent(cell['healed'])}, utility {percent(cell['utility'])}{_attack(cell, 'asr')}",
        ]
        if is_known(again := cell.get("uxh_recalibrated")):
            lines.append(f"recalibrated {percent(again)}{_attack(cell, 'asr_recalibrated')}")
        cost = f"{duration(cell['seconds'])}, {count(cell['sample_gradients'])} sample gradients"
        whole = summary.cell.get((REFERENCE, *where[1:]), {}).get("sample_gradients")
        if where[0] != REFERENCE and whole and is_known(share := cell["sample_gradients"] / whole):
            cost += f" ({'under 1' if 0 < share < 0.01 else percent(share, 0)} % of retrain's)"
        lines.append(cost)
        if is_known(cell["rank"]):
            lines.append(f"place {cell['rank']:.0f} of {cell['ranked']:.0f} here, oracles apart")
        if cell["failed"]:
            lines.append(f"{cell['failed']} of {cell['failed'] + cell['seeds']} seeds failed")
    if weak is not None:
        learned = f"an original model had learned only {percent(weak, 0)} % of the corruption"
        lines.append(f"{learned}: this cell says little")
    return lines


def _attack(cell: Mapping[str, Any], name: str) -> str:
    return f", attack succeeds {percent(cell[name])}" if is_known(cell.get(name)) else ""
