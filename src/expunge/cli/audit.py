"""``expunge audit``: evidence about an unlearned model."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer
from rich.markup import escape
from rich.table import Table

from expunge.cli import options as args
from expunge.cli.screen import Screen, code_of, with_progress
from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.choice import Purpose
    from expunge.evaluation.evidence import Audit
    from expunge.evaluation.rows import Row
    from expunge.repair.audit import AuditOutcome

_SLOWEST = 3

_held = functools.partial(typer.Option, rich_help_panel="What the model is held against")


@args.takes(reading=args.Reading)
def audit_command(
    *,
    original: Path = typer.Option(
        ..., help="The model before unlearning: .safetensors, or .pt with tensors only."
    ),
    unlearned: Path = typer.Option(..., help="The model in question."),
    arch: args.Arch,
    data: args.Data,
    forget: str = typer.Option(
        ...,
        help="What was to be forgotten: a .txt, .csv, .json or .npy of positions, file names or marks, or "
        "column:NAME of the data.",
    ),
    validation: str = typer.Option(..., help="Data that no model was trained on."),
    retrained: Path | None = _held(None, help="A model trained without the forget set."),
    retrained_again: Path | None = _held(
        None, help="Another one, of another seed: how far the two lie apart is noise."
    ),
    oracle: Path | None = _held(None, help="A model trained on everything with the true labels."),
    truth: str | None = _held(
        None,
        help="True labels, of all rows or some: a .csv with a column true_label, a .json or column:NAME.",
    ),
    train_reference: bool = _held(
        False, "--train-reference", help="Train the retrained model twice, and with --truth the oracle."
    ),
    recipe: list[str] | None = _held(
        None,
        help=f"Of the original's training, for models that are trained, by default a short one: {args.RECIPE}",
    ),
    references: Path | None = _held(
        None, help="Folder that keeps trained models; by default 'references' beside the original."
    ),
    population: int = _held(
        0, help="Train 3 x N networks, and attack the method by them (U-LiRA, KLOM, RULI); 64 is customary."
    ),
    method: str | None = _held(
        None,
        help="By which a population unlearns; by default as report.json beside the unlearned model says.",
    ),
    set_: list[str] | None = _held(None, "--set", help="FIELD=VALUE of that method; repeatable."),
    purpose: str | None = typer.Option(
        None,
        help="What the list is of: bad rows (heal), whose labels count as wrong, or good ones (forget). By default "
        "report.json beside the unlearned model says, or --truth; else it is not known.",
    ),
    out: Path | None = typer.Option(None, help="Folder for audit.json, with every number."),
    quick: bool = typer.Option(
        False, "--quick", help="Leave out relearning, IDI, SVC attacks and noisy neighbours."
    ),
    all_: bool = typer.Option(False, "--all", help="Show every number, not the main ones alone."),
    seed: int = typer.Option(0, help="Of the references that are trained."),
    device: args.Device = None,
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
    _print_audit(console, found, everything=all_)
    if written is not None:
        console.plain(f"wrote {written}")
    if code := code_of(found.audit.verdict):
        raise typer.Exit(code)


def _print_audit(console: Screen, found: AuditOutcome, *, everything: bool) -> None:
    """Print the verdict, the table, what is not defined, and what it cost."""
    from expunge.evaluation.audit_table import legend, main_rows, undefined
    from expunge.evaluation.verdict import CAVEAT

    audit, verdict = found.audit, found.audit.verdict
    colour = "green" if verdict.worked else "red" if verdict.failed else "yellow"
    console.print(f"\n[bold {colour}]verdict: {escape(verdict.headline)}[/]")
    console.findings(verdict)
    for note in verdict.notes:
        console.item(f"[dim]{escape(note)}[/]", "*")
    if not audit.facts.reference:
        console.item("[dim]--train-reference trains a retrained model, or name one with --retrained.[/]", "*")
    console.print(f"[dim]{CAVEAT}[/]\n")
    defined = [row for row in audit.rows if not row.because]
    shown = defined if everything else main_rows(audit)
    console.print(_table(shown, audit))
    more = len(defined) - len(shown)
    left = f"{more} more numbers: --all shows them, --out writes them" if more else ""
    for text in filter(None, (legend(audit), left)):
        console.print(f"[dim]{text}[/]")
    reasons = undefined(audit)
    if reasons:
        console.print("\nnot defined here, because")
    for reason, names in reasons.items():
        console.item(f"{escape(reason)} [dim]({escape(', '.join(names))})[/]")
    slowest = sorted(audit.seconds.items(), key=lambda item: -item[1])[:_SLOWEST]
    parts = ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in slowest)
    console.print(f"\ncost: measuring {sum(audit.seconds.values()):.1f} s ({parts})")
    if (trained := found.references) is not None:
        kept = len(trained.models) - len(trained.trained)
        total = sum(trained.seconds[role] for role in trained.trained)
        were = f", {kept} kept from before" if kept else ""
        console.print(f"references: {len(trained.trained)} trained in {total:.1f} s{were}")


def _table(rows: list[Row], audit: Audit) -> Table:
    from expunge.evaluation.audit_table import AIMS, figure, reading
    from expunge.evaluation.rows import ROLES

    roles = [role for role in ROLES if role in audit.facts.roles]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    # Eighty columns hold all models.
    table.add_column("measurement", max_width=17 if len(roles) == len(ROLES) else 21)
    for role in roles:
        table.add_column(role, justify="right")
    floors = any(row.floor is not None for row in rows)
    if floors:
        table.add_column("floor", justify="right")
    table.add_column("aim")
    table.add_column("reading")
    for row in rows:
        cells = [figure(row.value(role), row) for role in roles]
        if floors:
            cells.append(figure(row.floor, row))
        meaning = reading(row, audit.facts.reference)
        table.add_row(row.name.replace("_", " "), *cells, AIMS[row.metric.better], meaning)
    return table
