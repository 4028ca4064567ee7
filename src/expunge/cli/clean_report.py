"""What ``expunge clean`` shows: before it starts, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

if TYPE_CHECKING:
    from expunge.repair.clean import Cleaned
    from expunge.repair.findings import Finding
    from expunge.repair.prepare import Prepared

_CLASSES = 5
_COLOUR = {"error": "bold red", "warning": "yellow", "note": "dim"}
_GRADE = {"it worked": "bold green", "it worked in part": "bold yellow"}


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print what the check before the repair found, one finding a paragraph."""
    for finding in findings:
        remedy = f"\n{finding.remedy}" if finding.remedy else ""
        _entry(
            console,
            f"[{_COLOUR[finding.level]}]{finding.level}[/]",
            escape(f"{finding.where} {finding.what}{remedy}"),
        )


def print_outlook(console: Console, prepared: Prepared) -> None:
    """Print what was read, what is going to be done, and what is doubtful about it."""
    data, forget, choice = prepared.data, prepared.forget, prepared.choice
    parameters = sum(parameter.numel() for parameter in prepared.model.parameters())
    _entry(
        console,
        "model",
        escape(f"{prepared.job.checkpoint}: {prepared.job.arch}, {parameters:,} parameters"),
    )
    _entry(
        console,
        "data",
        escape(f"{prepared.job.data}: {len(data):,} rows, {len(data.classes)} classes, on ")
        + prepared.numerics.device,
    )
    _entry(
        console,
        "listed",
        escape(f"{len(forget.positions):,} rows, by stored class: {_per_class(forget.per_class)}"),
    )
    after = f". Next best: {choice.runner_up}" if choice.runner_up else ""
    _entry(console, "method", f"[bold]{escape(prepared.method.name)}[/]: {escape(choice.why)}{after}")
    if prepared.changed:
        changed = ", ".join(f"{name}={value}" for name, value in prepared.changed.items())
        _entry(console, "settings", escape(f"{changed} (for data of this size and purpose)"))
    for note in (*data.notes, *forget.notes):
        _entry(console, "[dim]note[/]", escape(note))
    print_findings(console, prepared.check.findings)
    console.print()


def print_result(
    console: Console, out: Path, prepared: Prepared, cleaned: Cleaned, files: Sequence[str]
) -> None:
    """Print the measurements, the verdict, the cost and what was written."""
    from expunge.repair.result_rows import cost_sentence, result_rows

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    heads = ["before", "after", *(["reference"] if cleaned.reference is not None else [])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("wanted", style="dim")
    # Of bad rows an attack says little: the page, which has room to say so, shows it.
    for row in result_rows(prepared, cleaned, attacks=prepared.job.purpose == "forget"):
        compared = [row.reference] if cleaned.reference is not None else []
        table.add_row(row.name, row.before, row.after, *compared, row.wanted)
    console.print(table)
    grade = cleaned.verdict.grade
    console.print(f"[{_GRADE.get(grade, 'bold red')}]{grade[0].upper()}{grade[1:]}[/]", highlight=False)
    for reason in cleaned.verdict.reasons:
        console.print(Padding(f"- {escape(reason)}", (0, 0, 0, 2)), highlight=False)
    if cleaned.found is not None:
        count = len(cleaned.found.positions)
        good = f" (it expects {cleaned.found.expected_good:.0%} of them to be good): found.csv"
        told = f"{count:,} rows beside those listed{good}" if count else "no row beside those listed"
        console.print(Padding(f"- the method named {told}", (0, 0, 0, 2)), highlight=False)
    if "disagree.csv" in files:
        count = len(cleaned.disagreeing)
        told = f"{count:,} rows outside the list are no longer given their stored label; they may be bad too"
        console.print(Padding(f"- {told}: disagree.csv", (0, 0, 0, 2)), highlight=False)
    console.print()
    _entry(console, "cost", cost_sentence(cleaned))
    _entry(console, "wrote", escape(f"{out}/: {', '.join((cleaned.checkpoint, *files))}"))


def _entry(console: Console, name: str, text: str) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=8)
    grid.add_column(overflow="fold")
    grid.add_row(name, text)
    console.print(grid, highlight=False)


def _per_class(per_class: dict[str, int]) -> str:
    largest = sorted(per_class.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name}: {count}" for name, count in largest[:_CLASSES])
    more = len(largest) - _CLASSES
    return shown + (f" and {more} more classes" if more > 0 else "")
