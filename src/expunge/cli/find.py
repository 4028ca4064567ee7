"""``expunge find``: the list of bad training examples, proposed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

import expunge
from expunge.cli import options as args
from expunge.cli.screen import NO_LIST, Screen, plain_table, with_progress
from expunge.errors import InvalidInput, UnknownName, near_miss

if TYPE_CHECKING:
    from expunge.detection.agreement import Agreement
    from expunge.detection.result import Detection
    from expunge.detection.suspects import Suspects
    from expunge.inputs.training_data import TrainingData
    from expunge.repair.find import FindReady, FoundRows

DETECTORS = {
    "labels": "wrong labels, and rows with the features of known ones",
    "activation": "poison (two clusters in a class's features)",
    "spectral": "poison (outliers along a class's first direction)",
}
_FOLDS = 5
_SHOWN = 10
_RELEARNING = "How the original model was trained (for relearning)"
_TRAINING = "How models are trained with --folds"


@args.takes(reading=args.Reading)
def find_command(
    data: args.Data,
    arch: args.Arch,
    checkpoint: Path | None = typer.Option(None, help="The trained model; it is never changed."),
    known: str | None = typer.Option(
        None,
        help="Rows known to be bad, as 'clean --forget' takes them: they set the cut, and rows with their features are "
        "found too.",
    ),
    out: Path = typer.Option(
        Path("suspects.csv"),
        help="Where the list is written; the scores of all rows and a .json go beside it.",
    ),
    folds: int | None = typer.Option(
        None, help="Cross-validation with so many new models, in place of relearning; 5 is usual."
    ),
    recorded: Path | None = typer.Option(
        None, help="What expunge.Recording wrote while the original model was trained: no training at all."
    ),
    detectors: str | None = typer.Option(
        None,
        help=f"Of {', '.join(DETECTORS)}; by default labels, and activation if there is a checkpoint.",
    ),
    truth: str | None = typer.Option(
        None, help="True labels or the bad rows, to measure with: a FILE, or column:NAME of the data."
    ),
    poison_share: float = typer.Option(0.05, help="Upper bound on a class's poisoned share, for spectral."),
    seed: args.Seed = 0,
    device: args.Device = None,
    recipe: list[str] | None = typer.Option(None, help=args.RECIPE, rich_help_panel=_RELEARNING),
    base: Path | None = typer.Option(None, help=args.BASE, rich_help_panel=_RELEARNING),
    earlier: Path | None = typer.Option(None, help=args.EARLIER, rich_help_panel=_RELEARNING),
    epochs: int | None = typer.Option(
        None, help="Epochs of each; by default 15, or as many as make 600 steps.", rich_help_panel=_TRAINING
    ),
    batch_size: int = typer.Option(64, help="Examples a step.", rich_help_panel=_TRAINING),
    lr: float = typer.Option(1e-3, help="Of AdamW.", rich_help_panel=_TRAINING),
    *,
    reading: args.Reading,
) -> None:
    """Propose which training examples are bad: wrong labels and poison.

    A copy of the model relearns in a few passes, and what it then believes least is listed, worst first; a list of
    known rows sets the cut. Look through it with 'expunge review', then give it to 'expunge clean --forget'.

    Exit code 3: no usable list could be made; the file holds the fifty worst rows, none of them marked.
    """
    chosen = _detectors(detectors, checkpoint)
    if out.suffix != ".csv":
        raise InvalidInput(f"--out: expected a .csv file, got {out}")
    for path in (out, *(out.with_suffix(suffix) for suffix in (".json", ".scores.parquet", ".scores.csv"))):
        if path.exists():
            raise InvalidInput(f"--out: {path} is there already; choose another name, or move it away")
    if checkpoint is None and recorded is None and folds is None:
        folds = _FOLDS

    from expunge.detection.suspect_files import write_scores, write_suspects
    from expunge.repair.find import FindJob, ready_to_find, search
    from expunge.repair.job import read_recipe

    console = Screen()
    job = FindJob(
        data=data, arch=arch, checkpoint=None if checkpoint is None else checkpoint.expanduser(),
        options=reading.options(arch, device),
        labels="labels" in chosen, poison=tuple(name for name in chosen if name != "labels"), known=known,
        folds=folds, recorded=recorded, recipe=read_recipe(recipe or []), base=base, earlier=earlier, truth=truth,
        epochs=epochs, batch_size=batch_size, lr=lr, poison_share=poison_share, seed=seed, device=device,
        kept=out.with_name(f".{out.stem}.folds"),
    )  # fmt: skip
    ready = ready_to_find(job)
    console.print(
        f"{len(ready.data):,} examples, {len(ready.data.classes)} classes, on {ready.numerics.device}"
    )
    for note in ready.data.notes:
        console.dim(note)
    if checkpoint is None:
        console.print("[dim]without --checkpoint, poison is not looked for[/]")
    kept = "finished models are kept, the same command goes on from there"
    found = with_progress(
        console,
        lambda report: search(ready, lambda share: report(share, _doing(folds, share))),
        f"interrupted; {kept if job.folds else 'nothing was written'}",
    )
    write_suspects(out, found.suspects, found.rows)
    scores = write_scores(out, found.suspects, found.rows)
    summary = _write_summary(out, found, ready)
    _print_findings(console, out, found, ready)
    console.plain(f"wrote {out}, {scores.name} and {summary.name}")
    for file in job.kept.glob("*.safetensors"):
        file.unlink()
    if job.kept.is_dir() and not any(job.kept.iterdir()):
        job.kept.rmdir()
    if not found.suspects.usable:
        raise typer.Exit(NO_LIST)


def _detectors(text: str | None, checkpoint: Path | None) -> list[str]:
    known = ", ".join(DETECTORS)
    default = "labels" if checkpoint is None else "labels,activation"
    named = [part.strip() for part in (default if text is None else text).split(",") if part.strip()]
    if not named:
        raise InvalidInput(f"--detectors names none; expected some of {known}")
    for name in named:
        if name not in DETECTORS:
            raise UnknownName(f"unknown detector {name!r}{near_miss(name, DETECTORS)} (known: {known})")
    return [name for name in DETECTORS if name in named]


def _doing(folds: int | None, share: float) -> str:
    return f"training model {min(folds, math.floor(share * folds) + 1)} of {folds}" if folds else "relearning"


def _write_summary(out: Path, found: FoundRows, ready: FindReady) -> Path:
    """Write what each detector found, how well, and how the data is read again, beside the list; return where."""
    from expunge.store.atomic import write_output

    path, judged = out.with_suffix(".json"), found.suspects.labels
    unsaid = ("options", "recipe", "kept")
    content = {
        "expunge": expunge.__version__,
        "list": out.name,
        "settings": {name: value for name, value in vars(ready.job).items() if name not in unsaid},
        "reading": ready.job.options.reading | {"root": ready.job.options.root},
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
    text = json.dumps(content, indent=2, default=str)  # paths are no JSON
    write_output(path, f"{text}\n".encode(), remedy=f"the list is in {out}")
    return path


def _described(part: Detection, ready: FindReady) -> dict[str, Any]:
    evidence = {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in part.evidence.items()
    }
    figures = asdict(_agreement(part, ready)) if ready.truth is not None else {}
    n_flagged = int(part.flagged.sum())
    return {
        "n_flagged": n_flagged, "per_class": part.per_class, "evidence": evidence, "notes": part.notes, **figures
    }  # fmt: skip


def _agreement(part: Detection, ready: FindReady) -> Agreement:
    """Against the truth about the rows that were not known before."""
    from expunge.detection.agreement import agreement

    assert ready.truth is not None
    new = replace(part, flagged=part.flagged & ~ready.known)
    return agreement(new, ready.truth.bad.cpu() & ~ready.known, ready.truth.labels)


def _print_findings(console: Screen, out: Path, found: FoundRows, ready: FindReady) -> None:
    """Say in a sentence what was found; then by detector and class, the first rows to look at, and what to do next."""
    suspects, data = found.suspects, ready.data
    console.print(_sentence(found, ready))
    for part in suspects.found:
        for note in part.notes:
            console.dim(f"{part.detector}: {note}")
        for label in range(len(data.classes)) if part.detector == "activation" else ():
            if part.per_class[label]:
                figures = _cluster_figures(part.evidence, label)
                console.dim(f"activation: class {data.classes[label]} falls apart: {figures}")
    if ready.truth is not None:
        console.dim(f"truth: {ready.truth.note}")
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
    smaller, silhouette, anomaly = (
        evidence[name][label] for name in ("smaller_part", "silhouette", "anomaly")
    )
    others = "" if math.isnan(anomaly) else f"; {anomaly:.1f} deviations from the other classes"
    return f"a part of {smaller:.0%} lies apart (silhouette {silhouette:.2f}, 1 is apart, 0 is one cloud{others})"


def _by_detector(found: Sequence[Detection], together: Detection, ready: FindReady) -> Table:
    judged = ("precision", "recall") if ready.truth is not None else ()
    table = plain_table(left=("detector",), right=("flagged", "share", *judged))
    for part in [*found, *([together] if len(found) > 1 else [])]:
        count = int((part.flagged & ~ready.known).sum())
        row = ["together" if part is together else part.detector, f"{count:,}", f"{count / len(part):.1%}"]
        if ready.truth is not None:
            figures = _agreement(part, ready)
            row += ["-" if value is None else f"{value:.1%}" for value in (figures.precision, figures.recall)]
        table.add_row(*row)
    return table


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
        given = data.classes[int(data.examples.labels[row])]
        better = data.classes[suggested] if suggested >= 0 else "-"
        detectors = "+".join(part.detector for part in suspects.found if bool(part.flagged[row]))
        table.add_row(escape(data.name(row)), escape(given), escape(better), detectors)
    return table
