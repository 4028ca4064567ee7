"""The charts of a store as files."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from expunge.errors import InvalidInput
from expunge.results.charts import map_chart
from expunge.results.frame import measurements
from expunge.results.fronts import COSTS, front, fronts_chart
from expunge.results.original_models import not_learned
from expunge.results.summary import Cell, summarise
from expunge.results.sweeps import sort_into_sweeps
from expunge.store.atomic import write_output
from expunge.store.record import Record

FORMATS = ("svg", "png", "pdf")


def write_map(records: Iterable[Record], path: str | Path, unlearned: Collection[Cell] = ()) -> None:
    """Write :func:`map_chart` of one sweep; see :func:`write_chart`.

    Raises:
        InvalidInput: no records, or of several data sets, models or settings (see ``summarise``).
    """
    write_chart(map_chart(summarise(measurements(records)), unlearned), path)


def write_chart(chart: Any, path: str | Path) -> Path:
    """Write ``chart`` as SVG, PNG or PDF, as the suffix of ``path`` says; needs no network.

    The file appears whole or not at all.

    Raises:
        InvalidInput: another suffix.
        StoreError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InvalidInput(
            f"a figure cannot be written as {path.name!r}; its name must end in "
            f"{', '.join(f'.{form}' for form in FORMATS)}"
        )
    made = io.StringIO() if suffix == "svg" else io.BytesIO()
    chart.save(made, format=suffix, scale_factor=2 if suffix == "png" else 1)
    found = made.getvalue()
    return write_output(path, found.encode() if isinstance(found, str) else found, "figure")


def write_figures(records: Iterable[Record], folder: Path, learned: Mapping[str, float]) -> list[Path]:
    """Write the map and the accuracy / cost front of every sweep as SVG and PDF; return the paths.

    Args:
        records: of one store; forgetting tasks have no figure.
        folder: made if missing.
        learned: key of an original model -> share of the corruption it had learned.

    Raises:
        StoreError: a file cannot be written.
    """
    written = []
    for sweep in sort_into_sweeps(records):
        if not sweep.corruption:
            continue
        summary = summarise(measurements(sweep.corruption))
        charts: dict[str, Any] = {"map": map_chart(summary, set(not_learned(sweep.corruption, learned)))}
        if any(len(front(summary, cost)) for cost in COSTS):
            charts["front"] = fronts_chart(summary)
        written += [
            write_chart(chart, folder / f"{name}-{sweep.slug}.{form}")
            for form in ("svg", "pdf")
            for name, chart in charts.items()
        ]
    return written
