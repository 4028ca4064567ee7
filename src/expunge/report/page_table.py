"""The table of all methods: sortable, with the best, the second best and what ties with the best."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from expunge.report.comparison import LEVEL, Standing, standings
from expunge.report.html import Html, element
from expunge.report.summary import MethodSummary, Summary
from expunge.report.wording import count, duration, megabytes, percent, with_interval
from expunge.store.record import Record

_CHIPS = {"best": "best", "second": "2nd", "tied": "tie"}


def method_table(
    summary: Summary, records: Sequence[Record], overall: Mapping[str, Standing], card_of: Mapping[str, str]
) -> Html:
    """Return the table; ``overall``: standings over the whole map, ``card_of``: method -> id of its card."""
    by_regularity = {
        label: standings(summary, records, [place for place in summary.places if place[0] == regularity])
        for regularity, label in summary.regularity_labels.items()
        if len(summary.regularities) > 1
    }
    headings = [("method", False), ("mean U × H %", True)]
    headings += [(f"{label} %", True) for label in by_regularity]
    headings += [(name, True) for name in ("healed known %", "healed unknown %", "utility %", "ASR %")]
    headings += [
        (name, True) for name in ("time per run", "gradients per run", "of retrain %", "MB", "failed")
    ]
    rows = [
        element(
            "tr",
            element("th", *_name(method, card_of), scope="row", data_value=method.method),
            _standing(overall[method.method], method, len(summary.places)),
            *(_standing(found[method.method]) for found in by_regularity.values()),
            *_numbers(summary, method, records),
            class_="oracle" if method.oracle else None,
        )
        for method in summary.methods
    ]
    return sortable(headings, rows, "Methods of this sweep", sorted_by=None)


def sortable(
    headings: Sequence[tuple[str, bool]], rows: Sequence[Html], label: str, sorted_by: int | None
) -> Html:
    """Return a table whose headings sort it; a heading is (text, whether the greatest comes first)."""
    head = [
        element(
            "th",
            element("button", text, type="button", data_falling="1" if falling else None),
            scope="col",
            aria_sort="descending" if number == sorted_by else None,
        )
        for number, (text, falling) in enumerate(headings)
    ]
    table = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_="sortable",
        aria_label=label,
    )
    return element(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label=f"{label}, scrolls sideways"
    )


def explanation(seeds: int) -> Html:
    """Return how the marks of :func:`method_table` are made."""
    test = (
        f"tie: the paired t-test over the {seeds} seeds against the best of the column (per seed, the mean difference "
        f"over the cells that both have) gives p ≥ {LEVEL:g}; not corrected for the number of methods."
        if seeds > 1
        else "One seed: no interval and no test can be given, and small differences mean nothing."
    )
    return element(
        "p",
        "Means over the cells of the map. Oracles and methods that lack cells are left out of the marks best and 2nd. "
        "± is the half-width of the 95 % t-interval over the seeds. ",
        test,
        " Gradients count examples that went forward and backward; in a widened network they cost more each.",
        class_="note",
    )


def number_cell(value: float | None, text: str, *chips: Html) -> Html:
    """Return a table cell that sorts by ``value``."""
    return element("td", text, *chips, data_value=None if value is None else f"{value:.6g}")


def _name(method: MethodSummary, card_of: Mapping[str, str]) -> tuple[Html, str]:
    link = element("a", method.method, href=f"#{card_of[method.method]}")
    return link, " (oracle)" if method.oracle else ""


def _standing(standing: Standing, method: MethodSummary | None = None, places: int = 0) -> Html:
    chips = [name for name in (standing.mark, "tied" if standing.tied else "") if name]
    shown = [element("span", _CHIPS[chip], class_=f"chip {chip}", title=_test(standing)) for chip in chips]
    text = with_interval(standing.interval)
    if method is not None and 0 < method.cells < places:
        text += f" ({method.cells}/{places} cells)"
    return number_cell(None if standing.interval is None else standing.interval.mean, text, *shown)


def _test(standing: Standing) -> str | None:
    return None if standing.p is None else f"paired t-test against the best: p = {standing.p:.2g}"


def _numbers(summary: Summary, method: MethodSummary, records: Sequence[Record]) -> list[Html]:
    own = [record for record in records if record.method == method.method and record.status == "done"]
    known, unknown = _over_cells(own, "healed_known"), _over_cells(own, "healed_unknown")
    whole = next((other.sample_gradients for other in summary.methods if other.method == "retrain"), None)
    gradients = method.sample_gradients
    share = None if not whole or gradients is None else gradients / whole
    return [
        number_cell(known, percent(known)),
        number_cell(unknown, percent(unknown)),
        number_cell(method.utility, percent(method.utility)),
        number_cell(method.asr, percent(method.asr)),
        number_cell(method.seconds, duration(method.seconds)),
        number_cell(gradients, count(gradients)),
        number_cell(share, percent(share, 0)),
        number_cell(method.peak_memory, megabytes(method.peak_memory)),
        number_cell(method.failed, str(method.failed)),
    ]


def _over_cells(records: Sequence[Record], name: str) -> float | None:
    """Mean of a field over the cells, each the mean over its seeds."""
    by_place: dict[tuple[float | None, float | None], list[float]] = {}
    for record in records:
        if (value := getattr(record, name)) is not None:
            by_place.setdefault((record.regularity, record.discovery), []).append(value)
    return statistics.fmean(map(statistics.fmean, by_place.values())) if by_place else None
