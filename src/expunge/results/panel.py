"""Details shown when a cell of the page is clicked: numbers, runs, curves, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.results.sweeps import seed_text, settings_text
from expunge.results.wording import printable
from expunge.store.record import Record

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


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One cell of the page.

    Args:
        title: heading of its panel.
        lines: what the tooltip says, line by line.
        records: its runs.
        columns: key -> heading of the table of runs; keys are fields of a record or names in its metrics.
        command: what runs it again; None where no such command exists.
    """

    title: str
    lines: tuple[str, ...]
    records: Sequence[Record]
    columns: Mapping[str, str]
    command: str | None


class Cells:
    """Collects the cells of a page and packs them as JSON; numbers are rounded to four digits."""

    def __init__(self) -> None:
        self._asked: list[Asked] = []

    def add(self, cell: Asked) -> int:
        """Take up a cell and return its number."""
        self._asked.append(cell)
        return len(self._asked) - 1

    def pack(self) -> tuple[dict[str, Any], int | None]:
        """Return the JSON, and the number of rows the curves were thinned to if they were."""
        logs = [record.log for cell in self._asked for record in cell.records if record.log]
        kept = next((rows for rows in _CURVE_ROWS if _numbers(logs, rows) <= _CURVE_NUMBERS), _CURVE_ROWS[-1])
        shared = _Shared()
        cells = [
            {
                "title": printable(cell.title),
                "lines": [printable(line) for line in cell.lines],
                "columns": shared.number(list(cell.columns.values())),
                "runs": [_run(record, list(cell.columns), kept, shared) for record in cell.records],
                "command": cell.command,
            }
            for cell in self._asked
        ]
        thinned = any(len(log) > kept for log in logs)
        return {"cells": cells, "shared": shared.values}, kept if thinned else None


class _Shared:
    """Values that many runs have in common, stored once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        name = json.dumps(value, sort_keys=True)
        if name not in self._numbers:
            self._numbers[name] = len(self.values)
            self.values.append(value)
        return self._numbers[name]


def _run(record: Record, columns: Sequence[str], rows: int, shared: _Shared) -> dict[str, Any]:
    provenance = {name: text for name, text in record.provenance.items() if name != "created"}
    run: dict[str, Any] = {
        "seed": seed_text(record),
        "values": [_column(record, name) for name in columns],
        "key": record.key,
        "created": record.provenance.get("created", ""),
        "from": shared.number(
            {
                "settings": settings_text(record.settings) or "none",
                "task": f"{record.task}: {settings_text(_without_seed(record.task_settings))}",
                "recipe": settings_text(
                    {name: value for name, value in record.recipe.items() if value is not None}
                ),
                "computed by": settings_text(provenance),
            }
        ),
        "model": shared.number(record.model_key),
        "task": shared.number(record.task_key),
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


def _numbers(logs: Sequence[Sequence[Mapping[str, float]]], rows: int) -> int:
    return sum(min(len(log), rows) * max(map(len, log)) for log in logs)


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


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}


def _rounded(value: float) -> float:
    number = float(f"{value:.4g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number
