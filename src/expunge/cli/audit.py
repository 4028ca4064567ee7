"""``expunge audit``: evidence about an unlearned model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from expunge.cli import data_arguments as args
from expunge.cli.progress import ends_on_interrupt, progress_bar
from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.evaluation.facts import Labels
    from expunge.training.loop import Progress

Result = TypeVar("Result")

DID_NOT_WORK = 3
"""Exit code of an audit that found something against the unlearning."""
_LABELS: dict[str, Labels] = {"heal": "wrong", "forget": "right"}
_REFERENCES = "What the model is held against"


def audit_command(
    original: Annotated[
        Path, typer.Option(help="The model before unlearning: .safetensors, or .pt with tensors only.")
    ],
    unlearned: Annotated[Path, typer.Option(help="The model in question.")],
    arch: args.Arch,
    data: args.Data,
    forget: Annotated[
        str,
        typer.Option(
            help="What was to be forgotten: a .txt, .csv, .json or .npy of positions, file names or marks, or "
            "column:NAME of the data."
        ),
    ],
    validation: Annotated[str, typer.Option(help="Data that no model was trained on.")],
    retrained: Annotated[
        Path | None,
        typer.Option(help="A model trained without the forget set.", rich_help_panel=_REFERENCES),
    ] = None,
    retrained_again: Annotated[
        Path | None,
        typer.Option(
            help="Another one, of another seed: how far the two lie apart is noise.",
            rich_help_panel=_REFERENCES,
        ),
    ] = None,
    oracle: Annotated[
        Path | None,
        typer.Option(help="A model trained on everything with the true labels.", rich_help_panel=_REFERENCES),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="True labels, of all rows or some: a .csv with a column true_label, a .json or column:NAME.",
            rich_help_panel=_REFERENCES,
        ),
    ] = None,
    train_reference: Annotated[
        bool,
        typer.Option(
            "--train-reference",
            help="Train the retrained model twice, and with --truth the oracle.",
            rich_help_panel=_REFERENCES,
        ),
    ] = False,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=VALUE of the original's training, for --train-reference: epochs=30, batch_size=128, "
            "optimiser.lr=0.05; repeatable. By default a short training by AdamW.",
            rich_help_panel=_REFERENCES,
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps trained references; by default 'references' beside the original.",
            rich_help_panel=_REFERENCES,
        ),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            help="What the list is of: bad rows (heal), whose labels count as wrong, or good ones (forget). By default "
            "--truth says, else it is not known."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json, with every number.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out relearning, IDI, SVC attacks and noisy neighbours.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Show every number, not the main ones alone.")] = False,
    seed: Annotated[int, typer.Option(help="Of the references that are trained.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="Torch device; by default an accelerator if there is one.")
    ] = None,
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
    """Measure whether a model forgot: a verdict, and the numbers it rests on.

    A measurement, not a certificate. Every number stands beside that of the original, of a retrained model,
    and the distance of two retrained models. Without --retrained or --train-reference the claims are weaker.

    Exit code 3: something was found against it, in part or in whole.
    """
    if train_reference and (retrained or retrained_again or oracle):
        raise InvalidInput(
            "--train-reference trains what --retrained, --retrained-again and --oracle name: give it, or them"
        )
    if purpose not in (None, *_LABELS):
        raise InvalidInput(f"--purpose takes {' or '.join(_LABELS)}, got {purpose!r}")
    if recipe and not train_reference:
        raise InvalidInput("--recipe says how references are trained: give --train-reference too")
    written = None if out is None else out.expanduser() / "audit.json"
    if written is not None and written.exists():
        raise InvalidInput(f"--out: {written} is there already; choose another folder, or move it away")

    from expunge.cli.audit_report import print_audit, write_audit
    from expunge.repair.audit import Models, describe, measure, prepare, train
    from expunge.training.numerics import Numerics

    console = Console()
    options = args.data_options(
        arch, Numerics.choose(device).device, normalise=normalise, mean=mean, std=std, size=size, crop=crop,
        channels=channels, pad=pad, flip=flip, classes=classes, inputs=inputs, label=label, split=split,
        tokenizer=tokenizer, max_length=max_length, data_root=data_root,
    )  # fmt: skip
    files = {
        "original": original, "unlearned": unlearned, "retrained": retrained,
        "second_retrained": retrained_again, "oracle": oracle,
    }  # fmt: skip
    models = Models({role: path.expanduser() for role, path in files.items() if path is not None}, arch)
    prepared = prepare(models, data, forget, validation, truth, options)
    for note in prepared.notes:
        console.print(f"[dim]{note}[/]", highlight=False)
    kept = (references or original.with_name("references")).expanduser()
    trained, labels = None, _LABELS[purpose] if purpose else None
    if train_reference:
        trained = _with_progress(
            console, f"training references, kept in {kept}",
            lambda report: train(prepared, recipe or [], kept, seed, report),
        )  # fmt: skip
    found = _with_progress(
        console, "measuring", lambda report: measure(prepared, trained, labels, quick, report)
    )
    if written is not None:
        # Before anything is printed: a closed pipe would end the command.
        write_audit(written, found, describe(prepared, trained, data, forget, validation, truth))
    print_audit(console, found, trained, everything=all_)
    if written is not None:
        console.print(f"wrote {written}", highlight=False, markup=False, soft_wrap=True)
    if found.verdict.failed:
        raise typer.Exit(DID_NOT_WORK)


def _with_progress(console: Console, text: str, start: Callable[[Progress], Result]) -> Result:
    with progress_bar(console) as progress:
        bar = progress.add_task(text, total=1.0)
        if not console.is_terminal:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        with ends_on_interrupt(
            console, "interrupted; references that are finished are kept, nothing else was written"
        ):
            result = start(lambda share: progress.update(bar, completed=share))
        progress.update(bar, completed=1.0, description="")
    return result
