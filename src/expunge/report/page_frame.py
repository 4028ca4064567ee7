"""What stands around the results: heading, navigation, warnings, how to read the page, the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.report.html import Html, element
from expunge.report.page_map import not_learned
from expunge.report.sweeps import Sweep
from expunge.report.wording import counted, percent
from expunge.store.record import LEARNED_ENOUGH, Record
from expunge.tasks.regularity import regularity_name

_GLOSSARY = (
    (
        "Healed",
        "accuracy on the corrupted training images, by their true labels; known and unknown ones apart.",
    ),
    ("Utility", "accuracy on clean test images."),
    ("U × H", "their product; 100 % is a model that was never damaged."),
    ("Discovery", "share of the corrupted examples that is known, the columns of the map."),
    (
        "Regularity",
        "how much the corrupted examples have in common, the rows: from random labels to a poison trigger.",
    ),
    ("Oracle", "a method that sees what nobody knows outside an experiment; a bound, not a choice."),
)


def header(title: str, records: Sequence[Record]) -> Html:
    """Return what was run, in one paragraph."""
    seeds = sorted({record.seed for record in records})
    done = sum(record.status == "done" for record in records)
    created = sorted(text for record in records if (text := record.provenance.get("created")))
    told = [
        f"{counted(len(records), 'run')}, {done} finished",
        counted(len({record.method for record in records}), "method"),
        "data " + ", ".join(sorted({record.data for record in records})),
        "model " + ", ".join(sorted({record.model for record in records})),
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}",
    ]
    if created:
        days = sorted({text[:10] for text in (created[0], created[-1])})
        told.append(" to ".join(days))
    devices = sorted({record.provenance.get("device", "") for record in records} - {""})
    versions = sorted({record.provenance.get("expunge", "") for record in records} - {""})
    if devices:
        told.append(f"on {', '.join(devices)}")
    if versions:
        told.append(f"expunge {', '.join(versions)}")
    toggle = element("button", "Dark theme", type="button", id="theme")
    return element(
        "header", element("div", element("h1", title), toggle, class_="title"), element("p", "; ".join(told))
    )


def navigation(entries: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]) -> Html:
    """Return links to every sweep (id, title) and its parts (id, heading)."""
    several = len(entries) > 1
    links = []
    for identity, title, contents in entries:
        if several:
            links.append(element("li", element("a", title, href=f"#{identity}", class_="sweep")))
        links += [element("li", element("a", heading, href=f"#{name}")) for name, heading in contents]
    links += [
        element("li", element("a", heading, href=f"#{name}"))
        for name, heading in (("failed", "Failed"), ("provenance", "Provenance"))
    ]
    return element("nav", element("ul", *links), aria_label="Parts of this page")


def warnings(sweeps: Sequence[Sweep], learned: Mapping[str, float]) -> Html | None:
    """Return what a reader has to know before the numbers; None where there is nothing."""
    found: list[str] = []
    for sweep in sweeps:
        seeds = {record.seed for record in sweep.records}
        if len(seeds) == 1:
            found.append(
                f"{sweep.title}: one seed. No interval can be given; single cells may move by tens of points."
            )
        weak: dict[str, dict[int, float]] = {}
        for record in sweep.corruption:
            share = not_learned([record], learned)
            if share is not None:
                weak.setdefault(regularity_name(record.regularity or 0.0), {})[record.seed] = share
        for name, shares in weak.items():
            told = ", ".join(f"{percent(share, 0)} % (seed {seed})" for seed, share in sorted(shares.items()))
            found.append(
                f"{sweep.title}, {name}: the first model had learned only {told} of the corruption, under "
                f"{percent(LEARNED_ENOUGH, 0)} %. There was little to unlearn: these cells are hatched and say little."
            )
        failed = sum(record.status == "failed" for record in sweep.records)
        if failed:
            of_all = counted(len(sweep.records), "run")
            found.append(f"{sweep.title}: {failed} of {of_all} failed; means are over the others.")
        for name, what in (
            ("device", "devices"),
            ("torch", "versions of torch"),
            ("expunge", "versions of expunge"),
        ):
            values = sorted({record.provenance.get(name, "unknown") for record in sweep.records})
            if len(values) > 1:
                found.append(f"{sweep.title}: several {what} ({', '.join(values)}).")
    if not found:
        return None
    listed = element("ul", *(element("li", text) for text in found))
    return element(
        "section", element("h2", "Read this first"), listed, class_="warning", aria_label="Warnings"
    )


def reading() -> Html:
    """Return the glossary."""
    entries = [part for name, text in _GLOSSARY for part in (element("dt", name), element("dd", text))]
    hint = (
        "Hover over a cell or move to it with Tab and the arrow keys to see its interval, seeds and cost; click or "
        "press Enter for its runs, accuracy by class, learning curves and the command that repeats it."
    )
    return element(
        "details",
        element("summary", "How to read this page"),
        element("p", hint),
        element("dl", *entries),
        class_="reading",
    )


def panel() -> Html:
    """Return the dialog in which the script shows a cell."""
    close = element("button", "Close", type="button", id="close")
    head = element("div", element("h2", "", id="panel-title", tabindex=-1), close, class_="title")
    return element("dialog", head, element("div", id="panel-body"), id="panel", aria_labelledby="panel-title")
