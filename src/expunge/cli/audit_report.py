"""What ``expunge audit`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from expunge.cli.screen import Screen
from expunge.evaluation.audit_table import AIMS, figure, legend, main_rows, reading, undefined
from expunge.evaluation.rows import ROLES
from expunge.evaluation.verdict import CAVEAT

if TYPE_CHECKING:
    from expunge.evaluation.evidence import Audit
    from expunge.evaluation.references import References
    from expunge.evaluation.rows import Row

_SLOWEST = 3


def print_audit(
    console: Screen, audit: Audit, trained: References | None, *, everything: bool = False
) -> None:
    """Print the verdict, the table, what is not defined, and what it cost."""
    verdict = audit.verdict
    colour = "green" if verdict.worked else "red" if verdict.failed else "yellow"
    console.print(f"\n[bold {colour}]verdict: {escape(verdict.headline)}[/]")
    for finding in verdict.findings:
        lead = f"{finding.outcome}: " if len(verdict.outcomes) > 1 else ""
        console.item(escape(lead + finding.sentence))
    console.print(escape(verdict.advice))
    for note in verdict.notes:
        console.item(f"[dim]{escape(note)}[/]", "*")
    if not audit.facts.reference:
        console.item("[dim]--train-reference trains a retrained model, or name one with --retrained.[/]", "*")
    console.print(f"[dim]{CAVEAT}[/]\n")
    shown = [row for row in audit.rows if not row.because] if everything else main_rows(audit)
    console.print(_table(shown, audit))
    _print_legend(console, audit, len(audit.rows) - len(shown) - sum(bool(row.because) for row in audit.rows))
    _print_undefined(console, audit)
    _print_cost(console, audit, trained)


def _table(rows: list[Row], audit: Audit) -> Table:
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


def _print_legend(console: Screen, audit: Audit, more: int) -> None:
    left = f"{more} more numbers: --all shows them, --out writes them" if more > 0 else ""
    for text in filter(None, (legend(audit), left)):
        console.print(f"[dim]{text}[/]")


def _print_undefined(console: Screen, audit: Audit) -> None:
    reasons = undefined(audit)
    if reasons:
        console.print("\nnot defined here, because")
    for reason, names in reasons.items():
        console.item(f"{escape(reason)} [dim]({escape(', '.join(names))})[/]")


def _print_cost(console: Screen, audit: Audit, trained: References | None) -> None:
    slowest = sorted(audit.seconds.items(), key=lambda item: -item[1])[:_SLOWEST]
    parts = ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in slowest)
    console.print(f"\ncost: measuring {sum(audit.seconds.values()):.1f} s ({parts})")
    if trained is not None:
        kept = len(trained.models) - len(trained.trained)
        total = sum(trained.seconds[role] for role in trained.trained)
        were = f", {kept} kept from before" if kept else ""
        console.print(f"references: {len(trained.trained)} trained in {total:.1f} s{were}")
