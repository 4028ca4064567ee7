"""A card for each method: what it needs and touches, its source, its cost, and where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.report.html import Content, Html, element
from expunge.report.method_facts import MethodFacts
from expunge.report.summary import BASELINE, CellSummary, MethodSummary, Summary
from expunge.report.sweeps import settings_text
from expunge.report.wording import percent, place_text
from expunge.store.record import Record

_WORST = 3
_NEEDS = {
    "forget": "the examples to be forgotten",
    "retain": "the remaining training data",
    "recipe": "how the model was first trained",
    "truth": "the truth about the data, which nobody has outside an experiment",
    "classes": "which classes are to be forgotten",
    "codes": "a model trained with mnemonic codes",
    "unseen": "examples that the model was not trained on",
}
_PREPARED = {"codes": "with mnemonic codes", "example_tied": "with example-tied dropout"}


def cards(
    methods: Sequence[str],
    facts: Mapping[str, MethodFacts | None],
    summary: Summary | None,
    records: Sequence[Record],
    card_of: Mapping[str, str],
    method_of: Mapping[str, str],
) -> Html:
    """Return the cards of ``methods`` in their order; ``summary`` is that of the map, if there is one."""
    return element(
        "div",
        *(
            _card(label, facts.get(method_of[label]), summary, records, card_of[label], method_of[label])
            for label in methods
        ),
        class_="cards",
    )


def _card(
    label: str,
    facts: MethodFacts | None,
    summary: Summary | None,
    records: Sequence[Record],
    identity: str,
    method: str,
) -> Html:
    entries: list[tuple[str, Content]] = []
    if facts is None:
        entries.append(
            ("About", f"{method} is not installed here, so nothing is known of its needs and source.")
        )
    else:
        needs = "; ".join(_NEEDS.get(need, need) for need in facts.needs) or "nothing"
        entries.append(("Needs", needs))
        if facts.preparation:
            entries.append(
                (
                    "Prepared",
                    f"the first training must have been done {_PREPARED.get(facts.preparation, facts.preparation)}",
                )
            )
        entries.append(("Touches", facts.touches))
        if facts.source:
            entries.append(("Source", facts.source))
        entries.append(("Expected cost", _expected(facts)))
    entries += [("Settings", text) for text in _settings(records, label)]
    if summary is not None:
        known = next((found for found in summary.methods if found.method == label), None)
        if known is not None:
            entries.append(("Fails at", _worst(summary, known)))
    definitions = [part for name, text in entries for part in (element("dt", name), element("dd", text))]
    head = element(
        "summary", element("b", label), " ", element("span", facts.summary if facts else "", class_="about")
    )
    return element("details", head, element("dl", *definitions), id=identity, class_="card")


def _expected(facts: MethodFacts) -> str:
    if facts.name == BASELINE:
        return "none"
    share = facts.retraining_share
    text = "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"
    return f"{text} of a retraining's passes at default settings"


def _settings(records: Sequence[Record], label: str) -> list[str]:
    found = {settings_text(record.settings) for record in records if record.method == label}
    return sorted(found - {""})


def _worst(summary: Summary, method: MethodSummary) -> Html:
    """The cells with the lowest means, failed ones first."""
    own = [
        cell for cell in summary.cells.values() if cell.method == method.method and (cell.uxh or cell.failed)
    ]
    own.sort(key=lambda cell: (cell.uxh.mean if cell.uxh else -1.0, cell.regularity, cell.discovery))
    shown = [element("li", f"{place_text(summary, cell)}: {_value(cell)}") for cell in own[:_WORST]]
    return element("ul", *shown) if shown else element("span", "no cell was run")


def _value(cell: CellSummary) -> str:
    if cell.uxh is None:
        return "failed"
    healed, utility = (percent(found.mean if found else None) for found in (cell.healed, cell.utility))
    return f"{percent(cell.uxh.mean)} % (healed {healed}, utility {utility})"
