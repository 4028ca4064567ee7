"""What ``expunge find`` shows and writes beside the list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import expunge
from expunge.errors import StoreError
from expunge.store.atomic import write_atomically

if TYPE_CHECKING:
    from expunge.detection.agreement import Agreement
    from expunge.detection.result import Detection
    from expunge.inputs.known_truth import KnownTruth
    from expunge.inputs.training_data import TrainingData

_SHOWN = 10


def write_summary(
    out: Path,
    found: Sequence[Detection],
    together: Detection,
    data: TrainingData,
    known: KnownTruth | None,
    settings: Mapping[str, Any],
) -> Path:
    """Write what each detector found, and how well, beside the list; return where.

    Raises:
        StoreError: the file cannot be written.
    """
    path = out.with_suffix(".json")
    content = {
        "expunge": expunge.__version__,
        "list": out.name,
        "settings": dict(settings),
        "n_examples": len(data),
        "classes": list(data.classes),
        "truth": None if known is None else known.note,
        "detectors": {part.detector: _described(part, known) for part in found},
        "together": _described(together, known),
    }
    try:
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; the list is in {out}") from error
    return path


def _described(part: Detection, known: KnownTruth | None) -> dict[str, Any]:
    evidence = {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in part.evidence.items()
    }
    figures = {} if known is None else asdict(_agreement(part, known))
    return {
        "n_flagged": int(part.flagged.sum()),
        "per_class": list(part.per_class),
        "evidence": evidence,
        "notes": list(part.notes),
        **figures,
    }


def _agreement(part: Detection, known: KnownTruth) -> Agreement:
    from expunge.detection.agreement import agreement

    return agreement(part, known.bad, known.labels)


def print_findings(
    console: Console,
    out: Path,
    found: Sequence[Detection],
    together: Detection,
    data: TrainingData,
    known: KnownTruth | None,
) -> None:
    """Show what each detector found, in which classes, the first rows to look at, and what to do next."""
    console.print(_by_detector(found, together, known))
    for part in found:
        for note in part.notes:
            console.print(f"[dim]{part.detector}: {escape(note)}[/]", highlight=False)
        for label in range(len(data.classes)) if part.detector == "activation" else ():
            if part.per_class[label]:
                figures = _cluster_figures(part.evidence, label)
                console.print(
                    f"[dim]activation: class {escape(data.classes[label])} falls apart: {figures}[/]",
                    highlight=False,
                )
    if known is not None:
        console.print(f"[dim]truth: {escape(known.note)}[/]", highlight=False)
    if not bool(together.flagged.any()):
        console.print("\nnothing is suspected")
        return
    console.print()
    console.print(_by_class(found, data))
    console.print()
    console.print(_first_rows(found, together, data))
    console.print(
        f"\nlook through {out}, and set is_label_issue to False where a row is good; then: expunge clean "
        f"--forget {out} ...",
        highlight=False,
        markup=False,
    )


def _cluster_figures(evidence: Mapping[str, Sequence[float]], label: int) -> str:
    """What the activations of a class show, in words; NaN where a figure cannot be had."""
    smaller, silhouette = evidence["smaller_part"][label], evidence["silhouette"][label]
    said = f"a part of {smaller:.0%} lies apart (silhouette {silhouette:.2f}, 1 is apart, 0 is one cloud"
    anomaly = evidence["anomaly"][label]
    if not math.isnan(anomaly):
        said += f"; {anomaly:.1f} deviations from the other classes"
    return said + ")"


def _by_detector(found: Sequence[Detection], together: Detection, known: KnownTruth | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("detector")
    for name in ("flagged", "share", *(("precision", "recall") if known is not None else ())):
        table.add_column(name, justify="right")
    for part in [*found, *([together] if len(found) > 1 else [])]:
        count = int(part.flagged.sum())
        row = ["together" if part is together else part.detector, f"{count:,}", f"{count / len(part):.1%}"]
        if known is not None:
            figures = _agreement(part, known)
            row += [_share(figures.precision), _share(figures.recall)]
        table.add_row(*row)
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _by_class(found: Sequence[Detection], data: TrainingData) -> Table:
    counts = data.examples.labels.bincount(minlength=len(data.classes)).tolist()
    totals = [sum(part.per_class[label] for part in found) for label in range(len(counts))]
    order = [label for label in sorted(range(len(counts)), key=lambda label: -totals[label]) if totals[label]]
    left = f" ({len(order) - _SHOWN} more in the .json)" if len(order) > _SHOWN else ""
    table = Table(title=f"flagged by stored class{left}", title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("examples", justify="right")
    for part in found:
        table.add_column(part.detector, justify="right")
    for label in order[:_SHOWN]:
        shown = [f"{part.per_class[label]:,}" for part in found]
        table.add_row(escape(data.classes[label]), f"{counts[label]:,}", *shown)
    return table


def _first_rows(found: Sequence[Detection], together: Detection, data: TrainingData) -> Table:
    rows = together.positions[together.scores[together.positions].argsort(descending=True)][:_SHOWN].tolist()
    table = Table(title="most suspicious", title_justify="left", box=None, pad_edge=False)
    for name in ("row", "stored label", "suggested", "detector"):
        table.add_column(name)
    for row in rows:
        suggested = int(together.suggested[row])
        table.add_row(
            escape(data.name(row)),
            escape(data.classes[int(data.examples.labels[row])]),
            escape(data.classes[suggested]) if suggested >= 0 else "-",
            "+".join(part.detector for part in found if bool(part.flagged[row])),
        )
    return table
