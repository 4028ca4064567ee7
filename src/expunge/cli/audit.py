"""``expunge audit``: evidence about an unlearned model."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from expunge.cli import data_arguments as args
from expunge.cli.exit_codes import code_of
from expunge.cli.options import takes
from expunge.cli.progress import with_progress
from expunge.cli.screen import Screen
from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.choice import Purpose

_held = functools.partial(typer.Option, rich_help_panel="What the model is held against")


@takes(reading=args.Reading)
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
    retrained: Annotated[Path | None, _held(help="A model trained without the forget set.")] = None,
    retrained_again: Annotated[
        Path | None, _held(help="Another one, of another seed: how far the two lie apart is noise.")
    ] = None,
    oracle: Annotated[Path | None, _held(help="A model trained on everything with the true labels.")] = None,
    truth: Annotated[
        str | None,
        _held(
            help="True labels, of all rows or some: a .csv with a column true_label, a .json or column:NAME."
        ),
    ] = None,
    train_reference: Annotated[
        bool, _held("--train-reference", help="Train the retrained model twice, and with --truth the oracle.")
    ] = False,
    recipe: Annotated[
        list[str] | None,
        _held(
            help=f"Of the original's training, for models that are trained, by default a short one: {args.RECIPE}"
        ),
    ] = None,
    references: Annotated[
        Path | None,
        _held(help="Folder that keeps trained models; by default 'references' beside the original."),
    ] = None,
    population: Annotated[
        int,
        _held(
            help="Train 3 x N networks, and attack the method by them (U-LiRA, KLOM, RULI); 64 is customary."
        ),
    ] = 0,
    method: Annotated[
        str | None,
        _held(
            help="By which a population unlearns; by default as report.json beside the unlearned model says."
        ),
    ] = None,
    set_: Annotated[list[str] | None, _held("--set", help="FIELD=VALUE of that method; repeatable.")] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            help="What the list is of: bad rows (heal), whose labels count as wrong, or good ones (forget). By default "
            "report.json beside the unlearned model says, or --truth; else it is not known."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json, with every number.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out relearning, IDI, SVC attacks and noisy neighbours.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Show every number, not the main ones alone.")] = False,
    seed: Annotated[int, typer.Option(help="Of the references that are trained.")] = 0,
    device: args.Device = None,
    *,
    reading: args.Reading,
) -> None:
    """Measure whether a model forgot: a verdict, and the numbers it rests on.

    A measurement, not a certificate. Every number stands beside that of the original, of a retrained model,
    and the distance of two retrained models. Without --retrained or --train-reference the claims are weaker.

    Exit codes: 0 it worked, in whole or in part; 3 it did not; 4 undecided.
    """
    written = None if out is None else out.expanduser() / "audit.json"
    if written is not None and written.exists():
        raise InvalidInput(f"--out: {written} is there already; choose another folder, or move it away")

    from expunge.cli.audit_report import print_audit
    from expunge.repair.audit import AuditJob, audit_files
    from expunge.repair.job import read_recipe, read_settings

    console = Screen()
    job = AuditJob(
        original=original, unlearned=unlearned, arch=arch, data=data, forget=forget, validation=validation,
        options=reading.options(arch, device), retrained=retrained, retrained_again=retrained_again, oracle=oracle,
        truth=truth, train_reference=train_reference, recipe=read_recipe(recipe or []), references=references,
        population=population, method=method, settings=read_settings("--set", set_ or []),
        purpose=cast("Purpose | None", purpose), quick=quick, seed=seed,
    )  # fmt: skip
    found = with_progress(
        console,
        lambda report: audit_files(job, report, lambda price: console.plain(price)),
        "interrupted; references that are finished are kept, nothing else was written",
    )
    if written is not None:
        # Before anything is printed: a closed pipe would end the command.
        found.write(written)
    for note in found.notes:
        console.dim(note)
    print_audit(console, found.audit, found.references, everything=all_)
    if written is not None:
        console.plain(f"wrote {written}")
    if code := code_of(found.audit.verdict):
        raise typer.Exit(code)
