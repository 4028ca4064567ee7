"""What ``expunge find`` shows and writes beside the list."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

import expunge
from expunge.cli.screen import Screen, plain_table
from expunge.store.atomic import write_output

if TYPE_CHECKING:
    from expunge.detection.agreement import Agreement
    from expunge.detection.result import Detection
    from expunge.detection.suspects import Suspects
    from expunge.inputs.training_data import TrainingData
    from expunge.repair.find import FindReady, FoundRows

_SHOWN = 10


def write_summary(out: Path, found: FoundRows, ready: FindReady) -> Path:
    """Write what each detector found, how well, and how the data is read again, beside the list; return where.

    Raises:
        StoreError: the file cannot be written.
    """
    from expunge.repair.find import settings_of

    path, judged = out.with_suffix(".json"), found.suspects.labels
    content = {
        "expunge": expunge.__version__,
        "list": out.name,
        "settings": settings_of(ready.job),
        "reading": ready.job.options.reading | {"root": _text(ready.job.options.root)},
        "n_examples": len(ready.data),
        "classes": list(ready.data.classes),
        "truth": None if ready.truth is None else ready.truth.note,
        "usable": found.suspects.usable,
        "n_listed": found.suspects.n_new if found.suspects.usable else 0,
        "n_known": int(ready.known.sum()),
        "expected_wrong": None if judged is None else judged.estimated,
        "expected_precision": None if judged is None else judged.precision,
        "seconds": found.seconds,
        "detectors": {part.detector: _described(part, ready) for part in found.suspects.found},
        "together": _described(found.suspects.together, ready),
    }
    write_output(path, (json.dumps(content, indent=2) + "\n").encode(), remedy=f"the list is in {out}")
    return path


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _described(part: Detection, ready: FindReady) -> dict[str, Any]:
    evidence = {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in part.evidence.items()
    }
    figures = asdict(_agreement(part, ready)) if ready.truth is not None else {}
    return {
        "n_flagged": int(part.flagged.sum()),
        "per_class": list(part.per_class),
        "evidence": evidence,
        "notes": list(part.notes),
        **figures,
    }


def _agreement(part: Detection, ready: FindReady) -> Agreement:
    """Against the truth about the rows that were not known before."""
    from expunge.detection.agreement import agreement

    assert ready.truth is not None
    new = replace(part, flagged=part.flagged & ~ready.known)
    return agreement(new, ready.truth.bad.cpu() & ~ready.known, ready.truth.labels)


def print_findings(console: Screen, out: Path, found: FoundRows, ready: FindReady) -> None:
    """Say in a sentence what was found; then by detector and class, the first rows to look at, and what to do next."""
    suspects, data = found.suspects, ready.data
    console.print(_sentence(found, ready))
    for part in suspects.found:
        for note in part.notes:
            console.print(f"[dim]{part.detector}: {escape(note)}[/]")
        for label in range(len(data.classes)) if part.detector == "activation" else ():
            if part.per_class[label]:
                figures = _cluster_figures(part.evidence, label)
                console.print(
                    f"[dim]activation: class {escape(data.classes[label])} falls apart: {figures}[/]"
                )
    if ready.truth is not None:
        console.print(f"[dim]truth: {escape(ready.truth.note)}[/]")
    if not suspects.n_new:
        return
    parts = [part for part in suspects.found if part.detector != "known"]
    console.print()
    if suspects.usable:
        console.print(_by_detector(parts, suspects.together, ready))
        console.print()
        console.print(_by_class(parts, data))
        console.print()
    console.print(_first_rows(suspects, data))
    look = f"\nlook through it: expunge review {out}"
    then = f"; then: expunge clean --forget {out.with_suffix('.reviewed.csv')} ..." if suspects.usable else ""
    console.plain(look + then)


def _sentence(found: FoundRows, ready: FindReady) -> str:
    suspects, judged = found.suspects, found.suspects.labels
    count, known = suspects.n_new, int(ready.known.sum())
    beside = f" beside the {known:,} known" if known else ""
    if not suspects.usable:
        return f"No usable list; the {count} worst rows are written, none of them marked."
    if not count:
        return f"Nothing is suspected{beside}."
    share = count / len(ready.data)
    said = f"{count:,} of {len(ready.data):,} rows ({share:.1%}) are suspected{beside}"
    if judged is not None and judged.precision is not None:
        said += f"; about {judged.precision:.0%} of those listed for their label are expected to be wrong"
    return f"{said}. {found.seconds:.0f} s."


def _cluster_figures(evidence: Mapping[str, Sequence[float]], label: int) -> str:
    """What the activations of a class show, in words; NaN where a figure cannot be had."""
    smaller, silhouette = evidence["smaller_part"][label], evidence["silhouette"][label]
    said = f"a part of {smaller:.0%} lies apart (silhouette {silhouette:.2f}, 1 is apart, 0 is one cloud"
    anomaly = evidence["anomaly"][label]
    if not math.isnan(anomaly):
        said += f"; {anomaly:.1f} deviations from the other classes"
    return said + ")"


def _by_detector(found: Sequence[Detection], together: Detection, ready: FindReady) -> Table:
    judged = ("precision", "recall") if ready.truth is not None else ()
    table = plain_table(left=("detector",), right=("flagged", "share", *judged))
    for part in [*found, *([together] if len(found) > 1 else [])]:
        count = int((part.flagged & ~ready.known).sum())
        row = ["together" if part is together else part.detector, f"{count:,}", f"{count / len(part):.1%}"]
        if ready.truth is not None:
            figures = _agreement(part, ready)
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
    detectors = (part.detector for part in found)
    table = plain_table(f"flagged by given class{left}", left=("class",), right=("examples", *detectors))
    for label in order[:_SHOWN]:
        shown = [f"{part.per_class[label]:,}" for part in found]
        table.add_row(escape(data.classes[label]), f"{counts[label]:,}", *shown)
    return table


def _first_rows(suspects: Suspects, data: TrainingData) -> Table:
    new = suspects.worst_first[~suspects.known[suspects.worst_first]]
    table = plain_table("most suspicious", left=("row", "given label", "suggested", "detector"))
    for row in new[:_SHOWN].tolist():
        suggested = int(suspects.together.suggested[row])
        table.add_row(
            escape(data.name(row)),
            escape(data.classes[int(data.examples.labels[row])]),
            escape(data.classes[suggested]) if suggested >= 0 else "-",
            "+".join(part.detector for part in suspects.found if bool(part.flagged[row])),
        )
    return table
