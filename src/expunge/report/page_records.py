"""What failed, and where every number comes from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from expunge.report.forgetting import task_text
from expunge.report.html import Html, element
from expunge.report.repeat import Commands, grid_text
from expunge.report.seed_spread import seed_text, unlearning_varies
from expunge.report.sweeps import Sweep, settings_text
from expunge.report.wording import MISSING
from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name


def failures(sweeps: Sequence[Sweep]) -> Html:
    """Return the table of records that failed or were skipped, with their errors."""
    rows = [
        element(
            "tr",
            element("th", record.method, scope="row"),
            element("td", sweep.title),
            element("td", _where(record)),
            element("td", str(seed_text(record))),
            element("td", record.status),
            element("td", _error(record.error)),
        )
        for sweep in sweeps
        for record in sweep.records
        if record.status != "done"
    ]
    if not rows:
        return element("p", "Every recorded run was finished.")
    head = element(
        "tr",
        *(
            element("th", name, scope="col")
            for name in ("method", "sweep", "where", "seed", "status", "error")
        ),
    )
    table = element("table", element("thead", head), element("tbody", *rows), class_="plain")
    return element(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label="Failed runs, scrolls sideways"
    )


def provenance(sweeps: Sequence[Sweep], records: Sequence[Record]) -> Html:
    """Return the versions and machines, what the sweeps share, and the commands that repeat them."""
    return element(
        "div",
        element(
            "p",
            f"Every number on this page is computed from {len(records)} records, whose keys have the SHA-256 ",
            element("code", digest(records)),
            ". The panel of a cell names the key of each run, of its task and of its first model, its settings and "
            "the command that runs it again.",
        ),
        _machines(records),
        *(_sweep(sweep) for sweep in sweeps),
    )


def digest(records: Sequence[Record]) -> str:
    """Return the SHA-256 over the sorted keys of the records, one a line."""
    lines = "".join(f"{key}\n" for key in sorted(record.key for record in records))
    return hashlib.sha256(lines.encode()).hexdigest()


def _machines(records: Sequence[Record]) -> Html:
    names = [
        name
        for name in dict.fromkeys(name for record in records for name in record.provenance)
        if name != "created"
    ]
    found: Counter[tuple[str, ...]] = Counter()
    dates: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        where = tuple(record.provenance.get(name, MISSING) for name in names)
        found[where] += 1
        dates.setdefault(where, []).append(record.provenance.get("created", MISSING))
    rows = [
        element(
            "tr",
            *(element("td", text) for text in where),
            element("td", _span(dates[where])),
            element("td", str(found[where])),
        )
        for where in sorted(found)
    ]
    head = element("tr", *(element("th", name, scope="col") for name in (*names, "created", "records")))
    table = element("table", element("thead", head), element("tbody", *rows), class_="plain")
    return element(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label="Machines, scrolls sideways"
    )


def _sweep(sweep: Sweep) -> Html:
    first = sweep.records[0]
    recipe = {name: value for name, value in first.recipe.items() if value is not None}
    entries = [("Records", str(len(sweep.records))), ("First training", settings_text(recipe))]
    if sweep.corruption:
        shared = {
            name: value
            for name, value in sweep.corruption[0].task_settings.items()
            if name not in ("regularity", "discovery", "seed")
        }
        entries.append(("Corruption", settings_text({"n_corrupted": first.n_corrupted, **shared})))
    entries += [("Note", note) for note in sweep.notes]
    definitions = [part for name, text in entries for part in (element("dt", name), element("dd", text))]
    command = Commands(sweep.method_of).command(sweep.corruption) if sweep.corruption else None
    again = (
        [element("p", "Run it all again:"), element("pre", element("code", command), tabindex=0)]
        if command
        else []
    )
    rest = sweep.forgetting or ([] if command else sweep.corruption)
    grid = (
        grid_text(rest, sweep.method_of) if rest and (sweep.forgetting or unlearning_varies(rest)) else None
    )
    if grid:
        again.append(
            element(
                "p",
                "Run it all again: save this as grid.toml, then ",
                element("code", "expunge bench grid.toml"),
            )
        )
        again.append(element("pre", element("code", grid), tabindex=0))
    return element("div", element("h3", sweep.title), element("dl", *definitions), *again)


def _where(record: Record) -> str:
    if record.regularity is None or record.discovery is None:
        return task_text(record)
    return f"{regularity_name(record.regularity)}, {100 * record.discovery:.3g}% known"


def _error(text: str) -> Html:
    lines = text.strip().splitlines() or ["no reason was recorded"]
    if len(lines) == 1:
        return element("span", lines[0])
    return element("details", element("summary", lines[-1]), element("pre", text, tabindex=0))


def _span(dates: Sequence[str]) -> str:
    first, last = min(dates), max(dates)
    return first if first == last else f"{first} to {last}"
