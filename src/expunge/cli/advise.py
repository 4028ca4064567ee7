"""``expunge advise``: which method to use, and why."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from expunge.cli.screen import Screen
from expunge.errors import InvalidInput
from expunge.results.wording import MISSING, percent

if TYPE_CHECKING:
    from expunge.results.advice import Advice, Candidate
    from expunge.results.method_facts import MethodFacts

UNKNOWN = "unknown"
_SHOWN = 3


def advise_command(
    discovery: str = typer.Option(
        UNKNOWN, help="Share of the corruption that is known, in (0, 1], or 'unknown'."
    ),
    regularity: str = typer.Option(
        UNKNOWN,
        help="What the bad examples have in common: random (independent label errors), interclass (two classes "
        "confused), poison (a shared trigger), a number in 0..1, or 'unknown'.",
    ),
    retain: bool = typer.Option(True, help="Whether the remaining training data is still there."),
    forget_data: bool = typer.Option(True, help="Whether the known bad examples are still there."),
    budget: float | None = typer.Option(None, help="Most to be spent, as a share of a retraining: 0.25."),
    store: str | None = typer.Option(
        None, help="Judge by the records of this store; by default by figures that come with expunge."
    ),
) -> None:
    """Say which method to use, why, and what the advice rests on."""
    from expunge.choice import Situation
    from expunge.cli.report import read_store
    from expunge.results.advice import Evidence, advise, packaged_evidence
    from expunge.results.method_facts import method_facts
    from expunge.tasks.regularity import regularity_value

    situation = Situation(
        discovery=_share(discovery),
        regularity=None if regularity == UNKNOWN else regularity_value(regularity),
        retain=retain,
        forget=forget_data,
        budget=budget,
    )
    evidence = packaged_evidence()
    if store is not None:
        evidence = Evidence(source=f"store {store}", records=read_store(store).records)
    advice = advise(situation, evidence, method_facts)
    console = Screen()
    _verdict(console, advice, method_facts(advice.choice.method))
    _cells(console, advice)
    _excluded(console, advice)
    console.print(f"\n[bold]Evidence[/]  {escape(evidence.source)}")
    for sentence in (*advice.thin, *evidence.reservations):
        console.print(f"[yellow]caution:[/] {escape(sentence)}")


def _share(text: str) -> float | None:
    if text == UNKNOWN:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"--discovery takes a number in (0, 1] or 'unknown', got {text!r}") from None


def _verdict(console: Screen, advice: Advice, facts: MethodFacts | None) -> None:
    from expunge.results.advice import WORKS
    from expunge.results.summary import LEVEL

    choice, figures, other = advice.choice, advice.figures, advice.other
    console.print(f"[bold]Use[/] [bold cyan]{escape(choice.method)}[/]: {escape(choice.why)}.")
    if facts is not None:
        console.print(f"It reads: {', '.join(facts.needs) or 'nothing'}.")
    if figures is None:
        console.print("These records have no run of it in every cell that counts.")
    else:
        console.print(f"In these records it reaches {_standing(figures)}. {_cost(figures)}")
        if figures.mean < WORKS:
            console.print(
                f"[yellow]caution:[/] That is under the {percent(WORKS)} % that count as working; retrain if you can."
            )
    if advice.retrain is not None and advice.retrain is not figures:
        console.print(f"Retraining without the known part reaches {_standing(advice.retrain)}.")
    if other is not None and other is not advice.retrain:
        console.print(
            f"Best of the others: [bold]{escape(other.method)}[/], {_standing(other)}. {_cost(other)}"
        )
    if figures is not None and other is not None:
        name = escape(other.method)
        if advice.p is None:
            said = f"With these records no test can say whether the difference to {name} is more than chance."
        else:
            told = (
                f"it and {name} are not told apart"
                if advice.p >= LEVEL
                else f"the difference to {name} holds"
            )
            said = f"Over the seeds {told} (paired t-test, p = {advice.p:.2g})."
        console.print(said)
    if advice.cheaper is not None:
        console.print(
            f"Nearly as good and cheaper: [bold]{escape(advice.cheaper.method)}[/], "
            f"{_standing(advice.cheaper)}, at {_cost_number(advice.cheaper)} % of a retraining."
        )
    if advice.safer is not None:
        console.print(
            f"Better in the worst case: [bold]{escape(advice.safer.method)}[/], {_standing(advice.safer)}."
        )


def _cells(console: Screen, advice: Advice) -> None:
    from expunge.results.frame import place_text

    first = [] if advice.figures is None else [advice.figures]
    shown = [*first, *(found for found in advice.ranking if found not in first)][:_SHOWN]
    if advice.retrain is not None and advice.retrain not in shown:
        shown.append(advice.retrain)
    if not shown:
        return
    title = "\nCells this rests on: Utility x Healed, %"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell", no_wrap=True)
    for candidate in shown:
        table.add_column(escape(candidate.method), justify="right", overflow="fold")
    several = len(shown[0].cells.index.unique("sweep")) > 1
    for sweep, regularity, discovery in shown[0].cells.index:
        name = place_text(regularity, discovery)
        values = (percent(candidate.cells[sweep, regularity, discovery]) for candidate in shown)
        table.add_row(escape(f"{sweep}: {name}" if several else name), *values)
    table.add_section()
    table.add_row("mean", *(percent(candidate.mean) for candidate in shown))
    table.add_row("cost, % of retrain", *(_cost_number(candidate) for candidate in shown))
    console.print(table)


def _excluded(console: Screen, advice: Advice) -> None:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for method, reason in advice.excluded.items():
        by_reason[reason].append(method)
    if by_reason:
        console.print("[bold]Left out[/]")
    for reason, methods in sorted(by_reason.items()):
        console.print(f"  {escape(reason)}: {escape(', '.join(methods))}", soft_wrap=False)


def _standing(candidate: Candidate) -> str:
    if len(candidate.cells) == 1:
        return f"{percent(candidate.mean)} % Utility x Healed at {escape(candidate.worst_place)}"
    return (
        f"{percent(candidate.mean)} % Utility x Healed on average over {len(candidate.cells)} cells, at worst "
        f"{percent(candidate.worst)} % ({escape(candidate.worst_place)})"
    )


def _cost(candidate: Candidate) -> str:
    if candidate.cost is None:
        return "Its cost is not known."
    how = "the larger of its shares of seconds and sample gradients"
    if not candidate.measured:
        how = "declared by the method"
    return f"Cost: {_cost_number(candidate)} % of a retraining ({how})."


def _cost_number(candidate: Candidate) -> str:
    if candidate.cost is None:
        return MISSING
    return "under 1" if candidate.cost < 0.01 else percent(candidate.cost, 0)
