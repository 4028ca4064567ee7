"""Parts of the page that say what the differences rest on: spreads over the seeds, paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.report.comparison import LEVEL
from expunge.report.html import Html, element
from expunge.report.page_table import number_cell, sortable
from expunge.report.paired import MAP_MEASURE, Comparison, Rival
from expunge.report.seed_spread import MEANING, SeedSpread, spread_rows
from expunge.report.wording import MISSING, signed_interval


def spread_section(spreads: Sequence[SeedSpread], card_of: Mapping[str, str]) -> list[Html]:
    """Return a table for the map and one for each forgetting task, and how to read them."""
    parts = [element("p", MEANING, class_="note")]
    headings = [("method", False), ("mean %", True), ("sd training", True), ("sd unlearning", True)]
    headings += [("seeds", False), ("in words", False)]
    for task, measure in dict.fromkeys((spread.task, spread.measure) for spread in spreads):
        label = f"{measure}, forget {task}" if task else measure
        rows = [
            _spread_row(spread, card_of)
            for spread in spreads
            if (spread.task, spread.measure) == (task, measure)
        ]
        parts += [
            element("h4", label),
            sortable(headings, rows, f"Spread over the seeds: {label}", sorted_by=None),
        ]
    return parts


def comparison_section(found: Sequence[Comparison], card_of: Mapping[str, str]) -> list[Html]:
    """Return a table for each comparison, and how to read it."""
    parts: list[Html] = []
    headings = [("method", False), ("difference, points", True), ("p", False), ("p, Holm", False)]
    headings += [("pairs", True), ("not paired", True)]
    for comparison in found:
        better = "more is better" if comparison.measure == MAP_MEASURE else "less is better"
        why = ", the best by its mean" if comparison.best else ""
        label = f"{comparison.measure} against {comparison.against}"
        rows = [_rival_row(rival, card_of) for rival in comparison.rivals]
        parts += [
            element("h4", f"{label}{why}"),
            sortable(headings, rows, label, sorted_by=None),
            element("p", f"Difference: method − {comparison.against}; {better}.", class_="note"),
        ]
    caution = (
        " The method compared with was chosen by the same numbers, which favours it: name one beforehand to avoid that."
        if any(comparison.best for comparison in found)
        else ""
    )
    parts.append(
        element(
            "p",
            "Pairs are (task, training seed) that both methods have: cells that start from one first model, and "
            "unlearning seeds, are averaged first. ± is the half-width of the 95 % t-interval of the mean difference; "
            "p: of the two-sided paired t-test; p, Holm: the same adjusted for the number of methods in the table; "
            f"tie: p, Holm ≥ {LEVEL:g}.{caution}",
            class_="note",
        )
    )
    return parts


def _name(method: str, card_of: Mapping[str, str]) -> Html:
    link = element("a", method, href=f"#{card_of[method]}")
    return element("th", link, scope="row", data_value=method)


def _spread_row(spread: SeedSpread, card_of: Mapping[str, str]) -> Html:
    mean, training, unlearning, seeds, sentence = spread_rows(spread)
    found = spread.components
    return element(
        "tr",
        _name(spread.method, card_of),
        number_cell(found.mean.mean, mean),
        number_cell(found.training, training),
        number_cell(found.unlearning, unlearning),
        element("td", seeds),
        element("td", sentence),
    )


def _rival_row(rival: Rival, card_of: Mapping[str, str]) -> Html:
    test = rival.difference
    tie = [element("span", "tie", class_="chip tied")] if rival.tied else []
    if test is None:
        cells = [number_cell(None, MISSING) for _ in range(3)]
        counts = [number_cell(None, "fewer than 2"), number_cell(None, MISSING)]
    else:
        cells = [
            number_cell(test.difference.mean, signed_interval(test.difference), *tie),
            number_cell(test.p, f"{test.p:.2g}"),
            number_cell(rival.adjusted, MISSING if rival.adjusted is None else f"{rival.adjusted:.2g}"),
        ]
        counts = [
            number_cell(test.difference.n, str(test.difference.n)),
            number_cell(test.unpaired, str(test.unpaired)),
        ]
    return element("tr", _name(rival.method, card_of), *cells, *counts)
