"""The report: one HTML file that opens without a server and sends no request.

What the page says is put together here as plain values; ``templates/sweep.html.j2`` lays it out and escapes it. The
charts are Vega, drawn from the specifications that also make the figures on paper; a table below the map holds the
same numbers for the keyboard, a screen reader, and a reader without scripts.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import vl_convert
from markupsafe import Markup

from expunge.errors import InvalidInput
from expunge.results.cells import MAP_COLUMNS, RECALIBRATED_COLUMNS, Cells, Grids, map_lines
from expunge.results.charts import curves_chart, map_chart
from expunge.results.comparisons import compare_each, further_measures, seed_spreads
from expunge.results.frame import place_text, task_text
from expunge.results.fronts import COSTS, front, front_chart
from expunge.results.html import asset, embedded_json, render
from expunge.results.method_facts import NEEDS, MethodFacts
from expunge.results.original_models import learned_shares, not_learned
from expunge.results.page_tables import (
    FURTHER_MEANING,
    SPREAD_MEANING,
    forgetting_tables,
    further_tables,
    heading,
    methods_table,
    paired_tables,
    spread_tables,
)
from expunge.results.summary import GAPS, LEVEL, Cell, Summary
from expunge.results.sweeps import (
    Sweep,
    recipe_text,
    seed_text,
    settings_text,
    shared_task_settings,
    sort_into_sweeps,
)
from expunge.results.wording import ABSENT, MISSING, UNLEARNED, counted, is_known, percent
from expunge.store.record import LEARNED_ENOUGH, Record
from expunge.tasks.regularity import regularity_name

_WORST = 3
"""Cells that a method's card names."""

_PARTS = {
    "map": "Map", "fronts": "Accuracy and cost", "methods": "All methods", "forgetting": "Forgetting good data",
    "paired": "Paired comparison", "spread": "Spread over the seeds", "further": "Further measures", "cards": "Methods",
}  # fmt: skip


def build_page(
    records: Iterable[Record],
    facts: Mapping[str, MethodFacts | None],
    *,
    learned: Mapping[str, float] | None = None,
    grids: Sequence[str] = (),
    title: str = "expunge report",
    against: str | None = None,
) -> str:
    """Return the report on all records of a store; the same records give the same bytes.

    Args:
        records: in any order.
        facts: name of a method -> what it says of itself; None or absent for one that is not installed.
        learned: key of an original model -> share of the corruption it had learned; by default what the records
            of the method that does nothing tell.
        grids: TOML of the grids that were run into the store.
        title: of the page.
        against: the method that the others are compared with; by default the best of each sweep.

    Raises:
        InvalidInput: no records, or no sweep in which something can be compared with ``against``.
    """
    ordered = sorted(records, key=lambda record: record.key)
    if not ordered:
        raise InvalidInput("the store holds no records; run a sweep first ('expunge map' or 'expunge bench')")
    shares = learned_shares(ordered) if learned is None else learned
    sweeps = sort_into_sweeps(ordered)
    page = _Page(facts, shares, Cells(Grids(grids)))
    shown = [
        page.sweep(sweep, pairs, f"s{place}")
        for place, (sweep, pairs) in enumerate(zip(sweeps, compare_each(sweeps, against), strict=True), 1)
    ]
    packed, thinned = page.cells.pack()
    packed |= {"charts": page.charts, "curves": curves_chart().to_dict(validate=False)}
    scripts = [f"(()=>{{{_vega()}\n}})();", asset("page.js")]
    return render(
        "sweep.html.j2",
        title=title,
        level=LEVEL,
        needs=NEEDS,
        # In a function of its own: the names of a script are otherwise those of the window.
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        data=embedded_json(packed),
        facts=_header(ordered),
        warnings=[text for sweep in sweeps for text in _warnings(sweep, shares)],
        sweeps=shown,
        meanings={"spread": SPREAD_MEANING, "further": FURTHER_MEANING},
        n_records=len(ordered),
        digest=digest(ordered),
        machines=_machines(ordered),
        grids=page.cells.grids.files,
        thinned=thinned,
    )


def digest(records: Sequence[Record]) -> str:
    """Return the SHA-256 over the sorted keys of the records, one a line."""
    lines = "".join(f"{key}\n" for key in sorted(record.key for record in records))
    return hashlib.sha256(lines.encode()).hexdigest()


class _Page:
    """Puts the sweeps into values for the template, and collects what their cells show."""

    def __init__(
        self, facts: Mapping[str, MethodFacts | None], learned: Mapping[str, float], cells: Cells
    ) -> None:
        self.facts, self.learned, self.cells = facts, learned, cells
        self.charts: dict[str, Any] = {}

    def sweep(self, sweep: Sweep, pairs: pd.DataFrame, identity: str) -> dict[str, Any]:
        labels = sorted(sweep.method_of)
        shown: dict[str, Any] = {
            "id": identity,
            "title": sweep.title,
            "notes": sweep.notes,
            "card_of": {label: f"{identity}-card-{position}" for position, label in enumerate(labels)},
            "paired": paired_tables(pairs),
            "spread": spread_tables(seed_spreads(sweep.table)),
            "further": further_tables(further_measures(sweep.table)),
            "about": _about(sweep),
            "failures": [
                (record.method, _where(record), seed_text(record), record.status, record.error.strip())
                for record in sweep.records
                if record.status != "done"
            ],
        }
        summary = None
        if sweep.on_map:
            shown["summary"] = summary = sweep.summary
            labels = list(summary.method)
            shown["map"] = self._map(summary, sweep, identity)
            shown["fronts"] = self._fronts(summary, sweep, identity)
            shown["methods"] = methods_table(summary, sweep.table)
        else:
            shown["forgetting"] = forgetting_tables(
                sweep.table, lambda *asked: self._runs_of_task(sweep, *asked)
            )
            shown["gaps"] = ", ".join(map(heading, GAPS))
        shown["cards"] = [self._card(label, summary, sweep) for label in labels]
        shown["parts"] = [(name, title) for name, title in _PARTS.items() if shown.get(name)]
        return shown

    def _map(self, summary: Summary, sweep: Sweep, identity: str) -> dict[str, Any]:
        weak = not_learned(sweep.records, self.learned)
        runs: dict[Cell, list[Record]] = defaultdict(list)
        for record in sweep.records:
            runs[record.method, float(record.regularity or 0), float(record.discovery or 0)].append(record)
        columns = MAP_COLUMNS | (RECALIBRATED_COLUMNS if summary.recalibrated else {})
        tiles: dict[Cell, dict[str, Any]] = {}
        for where, records in runs.items():
            lines = map_lines(summary, where, weak.get(where))
            place = _place(summary, where)
            number = self.cells.add(f"{where[0]}: {place}", lines, records, columns, sweep.method_of)
            failed, value = summary.cell[where]["failed"], summary.cell[where]["uxh"]
            text = percent(value, 0) if is_known(value) else ABSENT if failed else MISSING
            text += "!" if is_known(value) and failed else ""
            label = f"{place}: {lines[0]}"
            if where in weak:
                text += UNLEARNED
                label += ", original model had not learned the corruption"
            tiles[where] = {"cell": number, "text": text, "label": label}
        numbers = {where: tile["cell"] for where, tile in tiles.items()}
        self.charts[f"{identity}-map"] = map_chart(summary, weak, numbers).to_dict(validate=False)
        return {"chart": f"{identity}-map", "tiles": tiles}

    def _runs_of_task(self, sweep: Sweep, task: str, method: str, names: list[str], line: str) -> int:
        records = [record for record in sweep.records if (task_text(record), record.method) == (task, method)]
        costs = {"seconds": "s", "sample_gradients": "gradients", "peak_memory": "MB"}
        columns = {name: f"{heading(name)} %" for name in names} | costs
        title = f"{method}: {sweep.title}, Forget {task}"
        return self.cells.add(title, [line] if line else [], records, columns, sweep.method_of)

    def _fronts(self, summary: Summary, sweep: Sweep, identity: str) -> dict[str, Any]:
        prepared = {
            label
            for label, method in sweep.method_of.items()
            if (facts := self.facts.get(method)) is not None and facts.preparation
        }
        charts = []
        for cost, axis in COSTS.items():
            points = front(summary, cost)
            if not len(points):
                continue
            name = f"{identity}-{cost}"
            self.charts[name] = front_chart(summary, cost).to_dict(validate=False)
            on_front = points.index[points["kind"] == "on the front"]
            best = ", ".join(method + ("*" if method in prepared else "") for method in on_front) or "none"
            charts.append({"chart": name, "axis": axis, "best": best})
        return {"charts": charts, "prepared": bool(prepared)}

    def _card(self, label: str, summary: Summary | None, sweep: Sweep) -> dict[str, Any]:
        settings = {settings_text(record.settings) for record in sweep.records if record.method == label}
        return {
            "label": label,
            "method": sweep.method_of[label],
            "facts": self.facts.get(sweep.method_of[label]),
            "settings": sorted(settings - {""}),
            "worst": None if summary is None else _worst(summary, label),
        }


def _worst(summary: Summary, method: str) -> list[str]:
    """The cells in which a method is worst, those that failed first."""
    cells = summary.cells.loc[[method]]
    cells = cells[cells["uxh"].notna() | (cells["failed"] > 0)].fillna({"uxh": -1.0})
    return [
        f"{_place(summary, row.Index)}: "
        + (
            f"{percent(row.uxh)} % (healed {percent(row.healed)}, utility {percent(row.utility)})"
            if row.uxh >= 0
            else "failed"
        )
        for row in cells.sort_values("uxh", kind="stable").head(_WORST).itertuples()
    ]


def _place(summary: Summary, where: Cell) -> str:
    return f"{summary.regularity_labels[where[1]]}, {summary.discovery_labels[where[2]]} known"


def _where(record: Record) -> str:
    if record.regularity is None or record.discovery is None:
        return task_text(record)
    return place_text(record.regularity, record.discovery)


def _header(records: Sequence[Record]) -> str:
    seeds = sorted({record.seed for record in records})
    done = sum(record.status == "done" for record in records)
    created = sorted(text for record in records if (text := record.provenance.get("created")))
    facts = [
        f"{counted(len(records), 'run')}, {done} finished",
        counted(len({record.method for record in records}), "method"),
        "data " + ", ".join(sorted({record.data for record in records})),
        "model " + ", ".join(sorted({record.model for record in records})),
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}",
    ]
    if created:
        facts.append(" to ".join(sorted({text[:10] for text in (created[0], created[-1])})))
    for name, words in (("device", "on"), ("expunge", "expunge")):
        values = sorted({record.provenance.get(name, "") for record in records} - {""})
        if values:
            facts.append(f"{words} {', '.join(values)}")
    return "; ".join(facts)


def _warnings(sweep: Sweep, learned: Mapping[str, float]) -> Iterator[str]:
    """What a reader has to know before the numbers."""
    title = sweep.title
    if len({record.seed for record in sweep.records}) == 1:
        yield f"{title}: one seed. No interval can be given; single cells may move by tens of points."
    weak: dict[str, dict[int, float]] = defaultdict(dict)
    for record in sweep.records:
        for share in not_learned([record], learned).values():
            weak[regularity_name(record.regularity or 0.0)][record.seed] = share
    for name, shares in weak.items():
        listed = ", ".join(f"{percent(share, 0)} % (seed {seed})" for seed, share in sorted(shares.items()))
        yield (
            f"{title}, {name}: the original model had learned only {listed} of the corruption, under "
            f"{percent(LEARNED_ENOUGH, 0)} %. There was little to unlearn: cells marked {UNLEARNED} say little."
        )
    if failed := sum(record.status == "failed" for record in sweep.records):
        yield f"{title}: {failed} of {counted(len(sweep.records), 'run')} failed; means are over the others."
    for name, what in (
        ("device", "devices"),
        ("torch", "versions of torch"),
        ("expunge", "versions of expunge"),
    ):
        values = sorted({record.provenance.get(name, "unknown") for record in sweep.records})
        if len(values) > 1:
            yield f"{title}: several {what} ({', '.join(values)})."


def _machines(records: Sequence[Record]) -> dict[str, Any]:
    """A row for each machine and version that records come from: when, and how many."""
    found = pd.DataFrame([record.provenance for record in records], dtype=object).fillna(MISSING)
    if "created" not in found:
        found["created"] = MISSING
    names = [name for name in found if name != "created"]
    groups = found.groupby(names)["created"] if names else [((), found["created"])]
    rows = [
        [*where, " to ".join(dict.fromkeys((min(dates), max(dates)))), len(dates)] for where, dates in groups
    ]
    return {"headings": [*names, "created", "records"], "rows": rows}


def _about(sweep: Sweep) -> list[tuple[str, str]]:
    """What all records of a sweep share."""
    first = sweep.records[0]
    entries = [("Records", str(len(sweep.records))), ("Training of the original model", recipe_text(first))]
    if sweep.on_map:
        shared = {"n_corrupted": first.n_corrupted, **shared_task_settings(first)}
        entries.append(("Corruption", settings_text(shared)))
    return [*entries, *(("Note", note) for note in sweep.notes)]


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as they come with vl-convert; read without network."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
