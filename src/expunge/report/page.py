"""The report: one HTML file that opens without a server and sends no request.

Tables and the map are plain HTML, because a keyboard and a screen reader can walk them and they need no
script to be read; the accuracy / cost front and the learning curves are Vega, drawn from the specification
that also makes the figures on paper.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import vl_convert

from expunge.errors import InvalidInput
from expunge.report.comparison import standings
from expunge.report.first_models import learned_shares
from expunge.report.front import COSTS, front, front_chart
from expunge.report.html import Content, Html, element, embedded_json, joined
from expunge.report.method_facts import MethodFacts
from expunge.report.page_cards import cards
from expunge.report.page_cells import Cells
from expunge.report.page_curves import curves_chart
from expunge.report.page_forgetting import explanation as forgetting_explanation
from expunge.report.page_forgetting import forgetting_section
from expunge.report.page_frame import header, navigation, panel, reading, warnings
from expunge.report.page_map import legend, map_section
from expunge.report.page_records import failures, provenance
from expunge.report.page_references import reference_section
from expunge.report.page_statistics import comparison_section, spread_section
from expunge.report.page_table import explanation, method_table
from expunge.report.paired import Comparison, against_by_sweep
from expunge.report.reference_values import reference_rows
from expunge.report.seed_spread import seed_spreads
from expunge.report.summary import Summary, summarise
from expunge.report.sweeps import Sweep, sort_into_sweeps
from expunge.report.wording import counted
from expunge.store.record import Record


def build_page(
    records: Iterable[Record],
    facts: Mapping[str, MethodFacts | None],
    *,
    learned: Mapping[str, float] | None = None,
    title: str = "expunge report",
    against: str | None = None,
) -> str:
    """Return the report on all records of a store; the same records give the same bytes.

    Args:
        records: in any order.
        facts: name of a method -> what it says of itself; None or absent for one that is not installed.
        learned: key of a first model -> share of the corruption it had learned; by default what the records
            of the method that does nothing tell.
        title: of the page.
        against: the method that the others are compared with; by default the best of each sweep.

    Raises:
        InvalidInput: no records, or no sweep in which something can be compared with ``against``.
    """
    taken = sorted(records, key=lambda record: record.key)
    if not taken:
        raise InvalidInput("the store holds no records; run a sweep first ('expunge map' or 'expunge bench')")
    shares = learned_shares(taken) if learned is None else learned
    sweeps = sort_into_sweeps(taken)
    writer = _Page(facts, shares, against_by_sweep(sweeps, against))
    parts, places = [], []
    for number, sweep in enumerate(sweeps, 1):
        body, contents = writer.sweep(sweep, f"s{number}")
        parts.append(body)
        places.append((f"s{number}", sweep.title, contents))
    packed, thinned = writer.cells.pack()
    packed |= {"charts": writer.charts, "curves": curves_chart().to_dict(validate=False)}
    closing = [
        _section("failed", "Failed and skipped runs", failures(sweeps)),
        _section("provenance", "Provenance", provenance(sweeps, taken)),
    ]
    if thinned:
        closing.append(
            element(
                "p", f"Learning curves with more than {thinned} rows are thinned to {thinned}.", class_="note"
            )
        )
    body = joined(
        (
            element("a", "Skip to the results", href="#main", class_="skip"),
            header(title, taken),
            navigation(places),
            element("main", warnings(sweeps, shares), reading(), *parts, *closing, id="main", tabindex=-1),
            panel(),
            element("div", id="tooltip", role="tooltip", hidden=True),
        )
    )
    return _document(title, body, packed)


class _Page:
    def __init__(
        self,
        facts: Mapping[str, MethodFacts | None],
        learned: Mapping[str, float],
        compared: Mapping[str, Sequence[Comparison]],
    ) -> None:
        self.facts, self.learned, self.compared = facts, learned, compared
        self.cells = Cells()
        self.charts: dict[str, Any] = {}

    def sweep(self, sweep: Sweep, identity: str) -> tuple[Html, list[tuple[str, str]]]:
        """Return the section of a sweep, and (id, heading) of its parts."""
        labels = sorted(sweep.method_of)
        card_of = {label: f"{identity}-card-{number}" for number, label in enumerate(labels)}
        parts: list[Content] = []
        contents: list[tuple[str, str]] = []

        def add(name: str, heading: str, *content: Content) -> None:
            contents.append((f"{identity}-{name}", heading))
            parts.append(_section(f"{identity}-{name}", heading, *content, level="h3"))

        summary, order = None, labels
        if sweep.corruption:
            summary = summarise(sweep.corruption)
            order = [method.method for method in summary.methods]
            overall = standings(summary, sweep.corruption)
            maps = map_section(summary, sweep, overall, self.learned, self.cells, card_of)
            seeds = counted(len(summary.seeds), "seed")
            add(
                "map",
                "Map",
                element(
                    "p",
                    f"Utility × Healed in percent, mean of {seeds}. Rows: regularity; columns: share known.",
                    class_="note",
                ),
                legend(),
                maps,
            )
            add("front", "Accuracy and cost", *self._fronts(summary, sweep, identity))
            table = method_table(summary, sweep.corruption, overall, card_of)
            add("table", "All methods", table, explanation(len(summary.seeds)))
        if sweep.forgetting:
            found = forgetting_section(sweep.title, sweep.forgetting, self.cells, card_of)
            add("forgetting", "Forgetting good data", forgetting_explanation(), *found)
        if compared := self.compared[sweep.slug]:
            add("paired", "Paired comparison", *comparison_section(compared, card_of))
        if spreads := seed_spreads(sweep.records):
            add("spread", "Spread over the seeds", *spread_section(spreads, card_of))
        if rows := reference_rows(sweep.records):
            add("references", "Beside the retrained model", *reference_section(rows, card_of))
        shown = cards(order, self.facts, summary, sweep.records, card_of, sweep.method_of)
        add("cards", "Methods", shown)
        notes = [element("p", note, class_="note") for note in sweep.notes]
        return _section(identity, sweep.title, *notes, *parts), contents

    def _fronts(self, summary: Summary, sweep: Sweep, identity: str) -> list[Html]:
        shown = []
        prepared = {
            label
            for label, method in sweep.method_of.items()
            if (facts := self.facts.get(method)) is not None and facts.preparation
        }
        for cost, axis in COSTS.items():
            if not front(summary, cost):
                continue
            name = f"{identity}-{cost}"
            self.charts[name] = front_chart(summary, cost).to_dict()
            on_front = [point.method for point in front(summary, cost) if point.kind == "on the front"]
            best = ", ".join(method + ("*" if method in prepared else "") for method in on_front)
            label = f"Utility times Healed against {axis}. On the Pareto front: {best or 'none'}."
            shown.append(
                element(
                    "figure",
                    element("div", class_="chart", data_chart=name, role="img", aria_label=label),
                    element("figcaption", f"On the Pareto front, cheapest first: {best or 'none'}."),
                )
            )
        if not shown:
            return [element("p", "No cost was recorded.")]
        note = (
            "On the front: no other method is as good and cheaper, or better at the same cost. Oracles stay out of "
            "it; doing nothing and methods that lack cells are not drawn. The numbers are in the table below."
        )
        if prepared:
            note += " * needs a first training that was prepared for it."
        return [element("div", *shown, class_="fronts"), element("p", note, class_="note")]


def _section(identity: str, heading: str, *content: Content, level: str = "h2") -> Html:
    name = f"{identity}-heading"
    return element("section", element(level, heading, id=name), *content, id=identity, aria_labelledby=name)


def _document(title: str, body: Html, packed: Mapping[str, Any]) -> str:
    files = resources.files("expunge.report")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    # In a function of its own: the names of a script are otherwise those of the window.
    scripts = [f"(()=>{{{_vega()}\n}})();", files.joinpath("page.js").read_text(encoding="utf-8")]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = joined(
        (
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", title),
            element("style", Html(style)),
        )
    )
    data = element("script", embedded_json(packed), type="application/json", id="data")
    code = joined(element("script", Html(script)) for script in scripts)
    page = element("html", element("head", head), element("body", body, data, code), lang="en")
    return f"<!doctype html>\n{page}\n"


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as they come with vl-convert; read without network."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
