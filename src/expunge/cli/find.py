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
    from torch import Tensor

    from expunge.detection.result import Detection
    from expunge.training.loop import Progress

DETECTORS = {
    "labels": "wrong labels (confident learning, on out-of-sample predictions)",
    "activation": "poison (two clusters in a class's features)",
    "spectral": "poison (outliers along a class's first direction)",
}
_TRAINING = "How models are trained to look for wrong labels"


def find_command(
    data: args.Data,
    arch: args.Arch,
    checkpoint: Path | None = typer.Option(None, help="The trained model; needed to look for poison."),
    out: Path = typer.Option(Path("suspects.csv"), help="Where the list is written; a .json goes beside it."),
    detectors: str | None = typer.Option(
        None,
        help=f"Of {', '.join(DETECTORS)}; by default labels, and activation if there is a checkpoint.",
    ),
    truth: str | None = typer.Option(
        None, help="True labels or the bad rows, to measure with: a FILE, or column:NAME of the data."
    ),
    fast: bool = typer.Option(
        False, "--fast", help="Wrong labels from the checkpoint's features; no training."
    ),
    poison_share: float = typer.Option(0.05, help="Upper bound on a class's poisoned share, for spectral."),
    seed: int = typer.Option(0, help="Of folds, initialisation and clusters."),
    device: str | None = typer.Option(None, help="Torch device; by default an accelerator if there is one."),
    folds: int = typer.Option(5, help="Models that are trained.", rich_help_panel=_TRAINING),
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

    The list goes to 'expunge clean --forget'. Look through it first: precision is never 1. Ctrl-C keeps the
    models that are finished; the same command goes on from there.
    """
    chosen = _detectors(detectors, checkpoint, fast)
    if out.exists():
        raise InvalidInput(f"--out: {out} is there already; choose another name, or move it away")
    if out.suffix != ".csv":
        raise InvalidInput(f"--out: expected a .csv file, got {out}")

    from expunge.cli.find_report import print_findings, write_summary
    from expunge.detection.issue_table import write_issue_table
    from expunge.detection.label_errors import check_cleanlab
    from expunge.detection.out_of_sample import short_training
    from expunge.detection.result import combine
    from expunge.inputs.known_truth import read_truth
    from expunge.inputs.sources import load_training_data
    from expunge.repair.find import load_model, poison, read_features, wrong_labels, wrong_labels_fast
    from expunge.training.numerics import Numerics

    if "labels" in chosen:
        check_cleanlab()
    console = Console()
    place = Numerics.choose(device).device
    options = args.data_options(
        arch, place, normalise=normalise, mean=mean, std=std, size=size, crop=crop, channels=channels, pad=pad,
        flip=flip, classes=classes, inputs=inputs, label=label, split=split, tokenizer=tokenizer,
        max_length=max_length, data_root=data_root,
    )  # fmt: skip
    loaded = load_training_data(data, options)
    numerics = Numerics.for_inputs(place, loaded.shape)
    known = None if truth is None else read_truth(truth, loaded)
    model, loaded = load_model(arch, checkpoint, loaded, numerics)
    examples = loaded.examples
    console.print(
        f"{len(examples):,} examples, {len(loaded.classes)} classes, on {numerics.device}", highlight=False
    )
    for note in loaded.notes:
        console.print(f"[dim]{escape(note)}[/]", highlight=False)
    if checkpoint is None:
        console.print("[dim]without --checkpoint, poison is not looked for[/]")
    recipe = short_training(
        len(examples) - len(examples) // max(folds, 2),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        augment=pad > 0 or flip,
    )
    found: list[Detection] = []
    features: Tensor | None = None
    if set(chosen) - {"labels"} or fast:
        features = read_features(model, loaded, numerics)
    if "labels" in chosen:

        def look(progress: Progress) -> Detection:
            if fast and features is not None:
                return wrong_labels_fast(features, loaded, folds, seed, progress)
            return wrong_labels(arch, loaded, numerics, recipe, folds, seed, _folder(out), progress)

        found.append(_with_progress(console, look, folds))
    if features is not None:
        found += poison(chosen, features, loaded, poison_share, seed)
    together = combine(found, examples.labels)
    write_issue_table(
        out,
        found,
        together,
        examples.labels,
        loaded.classes,
        names=loaded.names,
        true_labels=None if known is None else known.labels,
    )
    settings = {
        "data": data, "arch": arch, "checkpoint": None if checkpoint is None else str(checkpoint), "fast": fast,
        "folds": folds, "epochs": recipe.epochs, "batch_size": batch_size, "lr": lr, "seed": seed,
        "poison_share": poison_share, "truth": truth,
    }  # fmt: skip
    summary = write_summary(out, found, together, loaded, known, settings)
    print_findings(console, out, found, together, loaded, known)
    console.print(f"wrote {out} and {summary}", highlight=False, markup=False)
    _remove_kept(_folder(out))


def _detectors(text: str | None, checkpoint: Path | None, fast: bool) -> list[str]:
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
    needing = [name for name in chosen if name != "labels"] + (["labels with --fast"] if fast else [])
    if needing and checkpoint is None:
        raise InvalidInput(
            f"{needing[0]} reads the features of the trained model: give it with --checkpoint, or look for wrong "
            "labels alone (--detectors labels, without --fast)"
        )
    return chosen


def _with_progress(console: Console, start: Callable[[Progress], Detection], folds: int) -> Detection:
    with progress_bar(console) as progress:
        bar = progress.add_task(f"training model 1 of {folds}", total=1.0)
        last = 0

        def show(share: float) -> None:
            nonlocal last
            number = min(folds, math.floor(share * folds) + 1)
            text = f"training model {number} of {folds}"
            progress.update(bar, completed=share, description=escape(text))
            if not console.is_terminal and number > last:
                console.print(f"{share:4.0%}  {text}", highlight=False)
            last = number

        with ends_on_interrupt(
            console, "interrupted; finished models are kept, the same command goes on from there"
        ):
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
