"""What ``expunge clean`` shows: before it starts, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from expunge.cli.screen import Screen
from expunge.results.wording import counted

if TYPE_CHECKING:
    from expunge.inputs.layer_checks import Remark
    from expunge.repair.clean import Cleaned
    from expunge.repair.prepare import Prepared
    from expunge.repair.price import Price

_CLASSES = 5
_COLOUR = {"error": "bold red", "warning": "yellow", "note": "dim"}
_GRADE = {"it worked": "bold green", "it did not work: retrain": "bold red"}


def print_findings(console: Screen, findings: Sequence[Remark]) -> None:
    """Print what the check before the repair found, one finding a paragraph."""
    for finding in findings:
        remedy = f"\n{finding.remedy}" if finding.remedy else ""
        console.entry(
            f"[{_COLOUR[finding.level]}]{finding.level}[/]",
            escape(f"{finding.where} {finding.what}{remedy}"),
        )


def print_outlook(console: Screen, prepared: Prepared) -> None:
    """Print what was read, what is going to be done, and what is doubtful about it."""
    data, forget, choice = prepared.data, prepared.forget, prepared.choice
    parameters = sum(parameter.numel() for parameter in prepared.model.parameters())
    console.entry(
        "model",
        escape(f"{prepared.job.checkpoint}: {prepared.job.arch}, {parameters:,} parameters"),
    )
    console.entry(
        "data",
        escape(f"{prepared.job.data}: {len(data):,} rows, {len(data.classes)} classes, on ")
        + prepared.numerics.device,
    )
    console.entry(
        "listed",
        escape(f"{len(forget.positions):,} rows, by given class: {_per_class(forget.per_class)}"),
    )
    after = f". Next best: {choice.runner_up}" if choice.runner_up else ""
    console.entry("method", f"[bold]{escape(prepared.method.name)}[/]: {escape(choice.why)}{after}")
    if prepared.optimiser:
        console.entry("training", escape(prepared.optimiser))
    if prepared.changed:
        changed = ", ".join(f"{name}={value}" for name, value in prepared.changed.items())
        console.entry("settings", escape(f"{changed} (for this data and purpose)"))
    for note in (*data.notes, *forget.notes):
        console.entry("[dim]note[/]", escape(note))
    print_findings(console, prepared.check.findings)


def print_price(console: Screen, price: Price) -> None:
    """Print what the work is going to cost."""
    console.entry("price", escape(str(price)))
    console.print()


def print_result(
    console: Screen, out: Path, prepared: Prepared, cleaned: Cleaned, files: Sequence[str]
) -> None:
    """Print the measurements, the verdict, the cost and what was written."""
    from expunge.evaluation.verdict import CAVEAT
    from expunge.repair.in_words import REJECTED, cost_sentence, fall_explained, one_sentence, result_rows

    verdict = cleaned.audit.verdict
    grade = verdict.grade
    console.print(
        f"[{_GRADE.get(grade, 'bold yellow')}]{grade[0].upper()}{grade[1:]}.[/] "
        + escape(one_sentence(prepared, cleaned))
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    heads = ["before", "after", *(["reference"] if cleaned.reference is not None else [])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("wanted", style="dim")
    for row in result_rows(prepared, cleaned):
        compared = [row.reference] if cleaned.reference is not None else []
        table.add_row(row.name, row.before, row.after, *compared, row.wanted)
    console.print(table)
    for note in (*cleaned.notes, *filter(None, [fall_explained(prepared, cleaned)])):
        console.item(escape(note))
    for finding in verdict.findings:
        lead = f"{finding.outcome}: " if len(verdict.outcomes) > 1 else ""
        console.item(escape(lead + finding.sentence))
    console.print(escape(verdict.advice))
    if cleaned.rejected:
        console.print(escape(REJECTED.format(file=cleaned.checkpoint)))
    for note in (*verdict.notes, CAVEAT):
        console.dim(note)
    job = prepared.job
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
        console.entry(
            "look at",
            f"found.csv: {counted(found, 'more row')} that the method takes for bad; about "
            f"{cleaned.found.expected_good:.0%} of them may be good",
        )
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
