"""``expunge find``: the list of bad training examples, proposed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from expunge.cli import data_arguments as args
from expunge.cli.exit_codes import NO_LIST
from expunge.cli.options import takes
from expunge.cli.progress import with_progress
from expunge.cli.screen import Screen
from expunge.errors import InvalidInput, UnknownName, near_miss

if TYPE_CHECKING:
    from expunge.repair.find import FindJob

DETECTORS = {
    "labels": "wrong labels, and rows with the features of known ones",
    "activation": "poison (two clusters in a class's features)",
    "spectral": "poison (outliers along a class's first direction)",
}
_FOLDS = 5
_RELEARNING = "How the original model was trained (for relearning)"
_TRAINING = "How models are trained with --folds"


@takes(reading=args.Reading)
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
    for path in (out, *(out.with_suffix(f".scores.{kind}") for kind in ("parquet", "csv"))):
        if path.exists():
            raise InvalidInput(f"--out: {path} is there already; choose another name, or move it away")
    if out.suffix != ".csv":
        raise InvalidInput(f"--out: expected a .csv file, got {out}")
    if checkpoint is None and recorded is None and folds is None:
        folds = _FOLDS

    from expunge.cli.find_report import print_findings, write_summary
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
        kept=_folder(out),
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
        lambda report: search(ready, lambda share: report(share, _doing(job, share))),
        f"interrupted; {kept if job.folds else 'nothing was written'}",
    )
    write_suspects(out, found.suspects, found.rows)
    scores = write_scores(out, found.suspects, found.rows)
    summary = write_summary(out, found, ready)
    print_findings(console, out, found, ready)
    console.plain(f"wrote {out}, {scores.name} and {summary.name}")
    _remove_kept(job.kept)
    if not found.suspects.usable:
        raise typer.Exit(NO_LIST)


def _detectors(text: str | None, checkpoint: Path | None) -> list[str]:
    default = "labels" if checkpoint is None else "labels,activation"
    named = [part.strip() for part in (default if text is None else text).split(",") if part.strip()]
    for name in named:
        if name not in DETECTORS:
            raise UnknownName(
                f"unknown detector {name!r}{near_miss(name, DETECTORS)} (known: {', '.join(DETECTORS)})"
            )
    chosen = [name for name in DETECTORS if name in named]
    if not chosen:
        raise InvalidInput(f"--detectors names none; expected some of {', '.join(DETECTORS)}")
    return chosen


def _doing(job: FindJob, share: float) -> str:
    folds = job.folds or 1
    number = min(folds, math.floor(share * folds) + 1)
    return f"training model {number} of {folds}" if job.folds else "relearning"


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.stem}.folds")


def _remove_kept(folder: Path) -> None:
    if not folder.is_dir():
        return
    for file in folder.glob("*.safetensors"):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
