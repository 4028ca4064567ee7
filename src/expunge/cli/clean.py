"""``expunge clean``: a trained model, repaired."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from expunge.cli import data_arguments as args
from expunge.cli.exit_codes import INTERRUPTED, code_of
from expunge.cli.options import takes
from expunge.cli.progress import with_progress
from expunge.cli.screen import Screen
from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.repair.prepare import Prepared

_method = functools.partial(typer.Option, rich_help_panel="The method")
_measure = functools.partial(typer.Option, rich_help_panel="What is measured")
_WORTH_ASKING = 10.0
"""Seconds of unlearning below which nobody is asked whether it may cost more than to retrain."""


@takes(reading=args.Reading)
def clean_command(
    checkpoint: Annotated[
        Path,
        typer.Option(help="The trained model: .safetensors, or .pt with tensors only. It is never changed."),
    ],
    arch: args.Arch,
    data: args.Data,
    forget: Annotated[
        str,
        typer.Option(
            help="The bad rows: a .txt, .csv, .json or .npy of positions, file names or marks, such as the list of "
            "'expunge find'; or column:NAME of the data."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results; it must be new or empty.")] = Path(
        "cleaned"
    ),
    method: Annotated[str | None, _method(help="Name of a method; by default one is chosen.")] = None,
    set_: Annotated[
        list[str] | None, _method("--set", help="FIELD=VALUE, a setting of the method; repeatable.")
    ] = None,
    purpose: Annotated[str, _method(help="heal (bad rows) or forget (good ones).")] = "heal",
    discovery: Annotated[
        float | None, _method(help="Share of the bad rows that is listed, in (0, 1].")
    ] = None,
    no_retain: Annotated[bool, _method("--no-retain", help="Do not train on the rows that stay.")] = False,
    unseen: Annotated[
        str | None, _method(help="Data the model was not trained on, for methods that need some.")
    ] = None,
    recipe: Annotated[list[str] | None, _method(help=f"Of the original's training: {args.RECIPE}")] = None,
    base: Annotated[Path | None, _method(help=args.BASE)] = None,
    earlier: Annotated[Path | None, _method(help=args.EARLIER)] = None,
    yes: Annotated[bool, _method("--yes", help="Go on where to retrain would cost less.")] = False,
    force: Annotated[
        bool,
        _method(
            "--force",
            help="Repair although there is little to repair, or the model scores badly on its data.",
        ),
    ] = False,
    truth: Annotated[
        str | None,
        _method(
            help="True labels of the listed rows: a .csv with a column true_label, a .json or column:NAME. They are "
            "learned in place of the wrong ones."
        ),
    ] = None,
    measure_only: Annotated[
        bool, _measure("--measure-only", help="Measure with --truth, do not learn it.")
    ] = False,
    validation: Annotated[
        str | None, _measure(help="Data the model was not trained on, to measure with.")
    ] = None,
    reference: Annotated[
        Path | None,
        _measure(help="A checkpoint that was retrained without the listed rows, to hold the result against."),
    ] = None,
    measure_batch: Annotated[int, _measure(help="Rows measured at a time.")] = 256,
    seed: args.Seed = 0,
    device: args.Device = None,
    devices: Annotated[
        int,
        typer.Option(help="GPUs that share the training steps of the method; with --device cpu, processes."),
    ] = 1,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 or bfloat16; by default float32 for tables, text and small images, else what is fast here."
        ),
    ] = None,
    *,
    reading: args.Reading,
) -> None:
    """Take bad training rows out of a trained model, and measure that it worked.

    OUT gets the checkpoint (container, names and shapes as yours), report.html,
    report.json, and found.csv where the method named further rows.

    Your files are only read; Ctrl-C leaves everything as it was.

    A result that is worse than your model is called rejected, not checkpoint.
    Where there is little to repair, the checkpoint is your model as it was.

    Exit codes: 0 it worked, in whole or in part; 3 it did not, or there is little to repair; 4 undecided.
    """
    console = Screen()
    if purpose not in ("heal", "forget"):
        raise InvalidInput(f"--purpose takes heal or forget, got {purpose!r}")

    from expunge.repair.job import Job, read_recipe, read_settings

    job = Job(
        checkpoint=checkpoint.expanduser(), arch=arch, data=data, forget=forget,
        options=reading.options(arch, device), method=method, settings=read_settings("--set", set_ or []),
        purpose=cast(Literal["heal", "forget"], purpose),
        retain=not no_retain, discovery=discovery, validation=validation, unseen=unseen, truth=truth,
        learn_truth=not measure_only, reference=reference, recipe=read_recipe(recipe or []), base=base,
        earlier=earlier, force=force, seed=seed, device=device, devices=devices, dtype=dtype,
        measure_batch=measure_batch,
    )  # fmt: skip

    from expunge.cli.clean_report import print_findings, print_outlook, print_result
    from expunge.repair.clean import clean
    from expunge.repair.clean_files import write_files
    from expunge.repair.loaded import CheckFailed
    from expunge.repair.output_folder import output_folder
    from expunge.repair.prepare import prepare

    try:
        with output_folder(out) as aside:
            prepared = prepare(job)
            print_outlook(console, prepared)
            if not prepared.untouched:
                _agreed(console, prepared, yes)
            cleaned = with_progress(console, lambda report: clean(prepared, aside, report))
            files = write_files(prepared, cleaned, aside)
    except CheckFailed as error:
        print_findings(console, error.findings)
        raise InvalidInput(str(error).partition("\n")[0]) from error  # the rest is on the screen
    except KeyboardInterrupt as error:
        left = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        console.plain(f"\ninterrupted: {checkpoint} is as it was, and {out} was not written{left}")
        raise typer.Exit(INTERRUPTED) from None
    print_result(console, out, prepared, cleaned, files)
    if code := code_of(cleaned.audit.verdict):
        raise typer.Exit(code)


def _agreed(console: Screen, prepared: Prepared, yes: bool) -> None:
    """Print the price; where retraining costs less, somebody has to agree to it."""
    from expunge.cli.clean_report import print_price
    from expunge.repair.price import price

    found = price(prepared)
    print_price(console, found)
    if yes or prepared.method.name == "retrain" or not found.dearer or found.unlearning < _WORTH_ASKING:
        return
    if not (console.is_terminal and sys.stdin.isatty()):
        raise InvalidInput("this costs more than to retrain; --yes goes on, --method retrain retrains")
    typer.confirm("This costs more than to retrain. Go on?", abort=True)
