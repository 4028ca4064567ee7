"""``expunge clean``: a trained model, repaired."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from expunge.cli import options as args
from expunge.cli.screen import INTERRUPTED, Screen, code_of, with_progress
from expunge.errors import InvalidInput
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.inputs.layer_checks import Remark
    from expunge.repair.clean import Cleaned
    from expunge.repair.prepare import Prepared

_method = functools.partial(typer.Option, rich_help_panel="The method")
_measure = functools.partial(typer.Option, rich_help_panel="What is measured")
_WORTH_ASKING = 10.0
"""Seconds of unlearning below which nobody is asked whether it may cost more than to retrain."""
_CLASSES = 5
_COLOUR = {"error": "bold red", "warning": "yellow", "note": "dim"}
_GRADE = {"it worked": "bold green", "it did not work: retrain": "bold red"}


@args.takes(reading=args.Reading)
def clean_command(
    *,
    checkpoint: Path = typer.Option(
        ..., help="The trained model: .safetensors, or .pt with tensors only. It is never changed."
    ),
    arch: args.Arch,
    data: args.Data,
    forget: str = typer.Option(
        ...,
        help="The bad rows: a .txt, .csv, .json or .npy of positions, file names or marks, such as the list of "
        "'expunge find'; or column:NAME of the data.",
    ),
    out: Path = typer.Option(Path("cleaned"), help="Folder of the results; it must be new or empty."),
    method: str | None = _method(None, help="Name of a method; by default one is chosen."),
    set_: list[str] | None = _method(None, "--set", help="FIELD=VALUE, a setting of the method; repeatable."),
    purpose: str = _method("heal", help="heal (bad rows) or forget (good ones)."),
    discovery: float | None = _method(None, help="Share of the bad rows that is listed, in (0, 1]."),
    no_retain: bool = _method(False, "--no-retain", help="Do not train on the rows that stay."),
    unseen: str | None = _method(None, help="Data the model was not trained on, for methods that need some."),
    recipe: list[str] | None = _method(None, help=f"Of the original's training: {args.RECIPE}"),
    base: Path | None = _method(None, help=args.BASE),
    earlier: Path | None = _method(None, help=args.EARLIER),
    yes: bool = _method(False, "--yes", help="Go on where to retrain would cost less."),
    force: bool = _method(
        False,
        "--force",
        help="Repair although there is little to repair, or the model scores badly on its data.",
    ),
    truth: str | None = _method(
        None,
        help="True labels of the listed rows: a .csv with a column true_label, a .json or column:NAME. They are "
        "learned in place of the wrong ones.",
    ),
    measure_only: bool = _measure(False, "--measure-only", help="Measure with --truth, do not learn it."),
    validation: str | None = _measure(None, help="Data the model was not trained on, to measure with."),
    reference: Path | None = _measure(
        None, help="A checkpoint that was retrained without the listed rows, to hold the result against."
    ),
    measure_batch: int = _measure(256, help="Rows measured at a time."),
    seed: args.Seed = 0,
    device: args.Device = None,
    devices: int = typer.Option(
        1, help="GPUs that share the training steps of the method; with --device cpu, processes."
    ),
    dtype: str | None = typer.Option(
        None,
        help="float32 or bfloat16; by default float32 for tables, text and small images, else what is fast here.",
    ),
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

    from expunge.repair.clean import clean
    from expunge.repair.clean_files import write_files
    from expunge.repair.loaded import CheckFailed
    from expunge.repair.output_folder import output_folder
    from expunge.repair.prepare import prepare

    try:
        with output_folder(out) as aside:
            prepared = prepare(job)
            _print_outlook(console, prepared)
            if not prepared.untouched:
                _agreed(console, prepared, yes)
            cleaned = with_progress(console, lambda report: clean(prepared, aside, report))
            files = write_files(prepared, cleaned, aside)
    except CheckFailed as error:
        _print_findings(console, error.findings)
        raise InvalidInput(str(error).partition("\n")[0]) from error  # the rest is on the screen
    except KeyboardInterrupt as error:
        left = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        console.plain(f"\ninterrupted: {checkpoint} is as it was, and {out} was not written{left}")
        raise typer.Exit(INTERRUPTED) from None
    _print_result(console, out, prepared, cleaned, files)
    if code := code_of(cleaned.audit.verdict):
        raise typer.Exit(code)


def _agreed(console: Screen, prepared: Prepared, yes: bool) -> None:
    """Print the price; where retraining costs less, somebody has to agree to it."""
    from expunge.repair.price import price

    found = price(prepared)
    console.entry("price", escape(str(found)))
    console.print()
    if yes or prepared.method.name == "retrain" or not found.dearer or found.unlearning < _WORTH_ASKING:
        return
    if not (console.is_terminal and sys.stdin.isatty()):
        raise InvalidInput("this costs more than to retrain; --yes goes on, --method retrain retrains")
    typer.confirm("This costs more than to retrain. Go on?", abort=True)


def _print_findings(console: Screen, findings: Sequence[Remark]) -> None:
    """Print what the check before the repair found, one finding a paragraph."""
    for finding in findings:
        remedy = f"\n{finding.remedy}" if finding.remedy else ""
        level = f"[{_COLOUR[finding.level]}]{finding.level}[/]"
        console.entry(level, escape(f"{finding.where} {finding.what}{remedy}"))


def _print_outlook(console: Screen, prepared: Prepared) -> None:
    """Print what was read, what is going to be done, and what is doubtful about it."""
    data, forget, choice = prepared.data, prepared.forget, prepared.choice
    parameters = sum(parameter.numel() for parameter in prepared.model.parameters())
    job, counts = prepared.job, f"{len(data):,} rows, {len(data.classes)} classes"
    console.entry("model", escape(f"{job.checkpoint}: {job.arch}, {parameters:,} parameters"))
    console.entry("data", escape(f"{job.data}: {counts}, on {prepared.numerics.device}"))
    per_class = _per_class(forget.per_class)
    console.entry("listed", escape(f"{len(forget.positions):,} rows, by given class: {per_class}"))
    after = f". Next best: {choice.runner_up}" if choice.runner_up else ""
    console.entry("method", f"[bold]{escape(prepared.method.name)}[/]: {escape(choice.why)}{after}")
    if prepared.optimiser:
        console.entry("training", escape(prepared.optimiser))
    if prepared.changed:
        changed = ", ".join(f"{name}={value}" for name, value in prepared.changed.items())
        console.entry("settings", escape(f"{changed} (for this data and purpose)"))
    for note in (*data.notes, *forget.notes):
        console.entry("[dim]note[/]", escape(note))
    _print_findings(console, prepared.check.findings)


def _print_result(
    console: Screen, out: Path, prepared: Prepared, cleaned: Cleaned, files: Sequence[str]
) -> None:
    """Print the measurements, the verdict, the cost and what was written."""
    from expunge.evaluation.verdict import CAVEAT
    from expunge.repair.in_words import REJECTED, cost_sentence, one_sentence, remarks, result_rows

    job, verdict = prepared.job, cleaned.audit.verdict
    grade = f"[{_GRADE.get(verdict.grade, 'bold yellow')}]{verdict.grade[0].upper()}{verdict.grade[1:]}.[/]"
    console.print(f"{grade} {escape(one_sentence(prepared, cleaned))}")
    models = ["before", "after", "reference"] if cleaned.reference is not None else ["before", "after"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    table.add_column("wanted", style="dim")
    for row in result_rows(prepared, cleaned):
        table.add_row(row.name, *(getattr(row, model) for model in models), row.wanted)
    console.print(table)
    for note in remarks(prepared, cleaned):
        console.item(escape(note))
    console.findings(verdict)
    if cleaned.rejected:
        console.print(escape(REJECTED.format(file=cleaned.checkpoint)))
    for note in (*verdict.notes, CAVEAT):
        console.dim(note)
    more = {
        "--validation DATA": job.validation,
        "--truth FILE": job.truth if job.purpose == "heal" else "",
        "--reference CHECKPOINT": job.reference,
    }
    lacking = [option for option, given in more.items() if given is None]
    if lacking:
        console.print(f"[dim]To know more: {', '.join(lacking)}.[/]")
    console.print()
    if cleaned.found is not None and (found := len(cleaned.found.positions)):
        good = f"about {cleaned.found.false_discovery:.0%} of them may be good"
        told = f"found.csv: {counted(found, 'more row')} that the method takes for bad; {good}"
        console.entry("look at", told)
    if "disagree.csv" in files:
        rows = counted(len(cleaned.disagreeing), "more row")
        told = f"disagree.csv: {rows} whose given label the model no longer gives"
        console.entry("" if "found.csv" in files else "look at", told)
    console.entry("cost", cost_sentence(cleaned))
    console.entry("wrote", escape(f"{out}/: {', '.join((cleaned.checkpoint, *files))}"))


def _per_class(per_class: dict[str, int]) -> str:
    largest = sorted(per_class.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name}: {count}" for name, count in largest[:_CLASSES])
    more = len(largest) - _CLASSES
    return shown + (f" and {more} more classes" if more > 0 else "")
