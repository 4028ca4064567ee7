"""``expunge find``: the list of bad training examples, proposed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from expunge.cli import data_arguments as args
from expunge.cli.progress import ends_on_interrupt, progress_bar
from expunge.errors import InvalidInput, UnknownName, near_miss

if TYPE_CHECKING:
    from expunge.repair.find import FindJob, FoundRows
    from expunge.training.loop import Progress

NO_LIST = 3
"""Exit code where no usable list could be made."""
DETECTORS = {
    "labels": "wrong labels, and rows with the features of known ones",
    "activation": "poison (two clusters in a class's features)",
    "spectral": "poison (outliers along a class's first direction)",
}
_FOLDS = 5
_RELEARNING = "How the model was first trained (for relearning)"
_TRAINING = "How models are trained with --folds"


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
        None, help="What expunge.Recording wrote during the first training: no training at all."
    ),
    detectors: str | None = typer.Option(
        None,
        help=f"Of {', '.join(DETECTORS)}; by default labels, and activation if there is a checkpoint.",
    ),
    truth: str | None = typer.Option(
        None, help="True labels or the bad rows, to measure with: a FILE, or column:NAME of the data."
    ),
    poison_share: float = typer.Option(0.05, help="Upper bound on a class's poisoned share, for spectral."),
    seed: int = typer.Option(0, help="Of everything random."),
    device: str | None = typer.Option(None, help="Torch device; by default an accelerator if there is one."),
    recipe: list[str] | None = typer.Option(
        None,
        help="FIELD=VALUE: epochs=30, batch_size=128, optimiser.lr=0.05; repeatable.",
        rich_help_panel=_RELEARNING,
    ),
    base: Path | None = typer.Option(
        None, help="The pretrained weights that training began from.", rich_help_panel=_RELEARNING
    ),
    earlier: Path | None = typer.Option(
        None, help="An earlier checkpoint of that training.", rich_help_panel=_RELEARNING
    ),
    epochs: int | None = typer.Option(
        None, help="Passes of each; by default 15, or as many as make 600 steps.", rich_help_panel=_TRAINING
    ),
    batch_size: int = typer.Option(64, help="Examples a step.", rich_help_panel=_TRAINING),
    lr: float = typer.Option(1e-3, help="Of AdamW.", rich_help_panel=_TRAINING),
    normalise: args.Normalise = None,
    mean: args.Mean = None,
    std: args.Std = None,
    size: args.Size = None,
    crop: args.Crop = False,
    channels: args.Channels = None,
    pad: args.Pad = 0,
    flip: args.Flip = False,
    classes: args.Classes = None,
    inputs: args.Inputs = None,
    label: args.Label = None,
    split: args.Split = None,
    tokenizer: args.Tokenizer = None,
    max_length: args.MaxLength = None,
    data_root: args.DataRoot = None,
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
    from expunge.training.numerics import Numerics

    console = Console()
    options = args.data_options(
        arch, Numerics.choose(device).device, normalise=normalise, mean=mean, std=std, size=size, crop=crop,
        channels=channels, pad=pad, flip=flip, classes=classes, inputs=inputs, label=label, split=split,
        tokenizer=tokenizer, max_length=max_length, data_root=data_root,
    )  # fmt: skip
    job = FindJob(
        data=data, arch=arch, checkpoint=None if checkpoint is None else checkpoint.expanduser(), options=options,
        labels="labels" in chosen, poison=tuple(name for name in chosen if name != "labels"), known=known,
        folds=folds, recorded=recorded, recipe=read_recipe(recipe or []), base=base, earlier=earlier, truth=truth,
        epochs=epochs, batch_size=batch_size, lr=lr, poison_share=poison_share, seed=seed, device=device,
        kept=_folder(out),
    )  # fmt: skip
    ready = ready_to_find(job)
    console.print(
        f"{len(ready.data):,} examples, {len(ready.data.classes)} classes, on {ready.numerics.device}",
        highlight=False,
    )
    for note in ready.data.notes:
        console.print(f"[dim]{escape(note)}[/]", highlight=False)
    if checkpoint is None:
        console.print("[dim]without --checkpoint, poison is not looked for[/]")
    found = _with_progress(console, job, lambda progress: search(ready, progress))
    write_suspects(out, found.suspects, found.rows)
    scores = write_scores(out, found.suspects, found.rows)
    summary = write_summary(out, found, ready)
    print_findings(console, out, found, ready)
    console.print(f"wrote {out}, {scores.name} and {summary.name}", highlight=False, markup=False)
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


def _with_progress(console: Console, job: FindJob, start: Callable[[Progress], FoundRows]) -> FoundRows:
    folds = job.folds or 1
    left = (
        "finished models are kept, the same command goes on from there"
        if job.folds
        else "nothing was written"
    )
    with progress_bar(console) as progress:
        bar = progress.add_task("", total=1.0)
        last = -1

        def show(share: float) -> None:
            nonlocal last
            number = min(folds, math.floor(share * folds) + 1)
            text = f"training model {number} of {folds}" if job.folds else "relearning"
            progress.update(bar, completed=share, description=escape(text))
            tenth = math.floor(10 * share)
            if not console.is_terminal and tenth > last:
                console.print(f"{share:4.0%}  {text}", highlight=False)
            last = tenth

        with ends_on_interrupt(console, f"interrupted; {left}"):
            found = start(show)
        progress.update(bar, completed=1.0, description="")
    return found


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.stem}.folds")


def _remove_kept(folder: Path) -> None:
    if not folder.is_dir():
        return
    for file in folder.glob("*.safetensors"):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
