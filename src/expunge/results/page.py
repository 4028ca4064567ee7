"""The report: one HTML file that opens without a server and sends no request.

What the page says is put together here as plain values; ``templates/sweep.html.j2`` lays it out and escapes it. The
charts are Vega, drawn from the specifications that also make the figures on paper; a table below the map holds the
same numbers for the keyboard, a screen reader, and a reader without scripts.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import vl_convert
from markupsafe import Markup

from expunge.errors import InvalidInput
from expunge.results.charts import COSTS, UNLEARNED, curves_chart, front, front_chart, map_chart, not_learned
from expunge.results.frame import measurements, task_text
from expunge.results.grids import Grids
from expunge.results.html import asset, render
from expunge.results.method_facts import MethodFacts
from expunge.results.original_models import learned_shares
from expunge.results.panel import MAP_COLUMNS, RECALIBRATED_COLUMNS, Asked, Cells
from expunge.results.summary import (
    BASELINE,
    GAP,
    GAPS,
    LEVEL,
    REFERENCE,
    SHOWN,
    Summary,
    check_against,
    compare,
    further_measures,
    seed_spreads,
    standings,
    summarise,
    summarise_forgetting,
)
from expunge.results.sweeps import Sweep, seed_text, settings_text, sort_into_sweeps
from expunge.results.tables import SPREAD_MEANING, has_recalibrated, shown_measures
from expunge.results.wording import (
    MISSING,
    count,
    counted,
    duration,
    is_known,
    megabytes,
    number,
    percent,
    signed_interval,
    with_interval,
)
from expunge.store.record import LEARNED_ENOUGH, Record
from expunge.tasks.regularity import regularity_name

_CHIPS = {"best": "best", "second": "2nd", "tied": "tie"}
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
_WORST = 3
"""Cells that a method's card names."""

Row = dict[str, Any]
Column = tuple[str, bool, Callable[[Any], Row]]
"""Heading, whether the greatest comes first when it sorts, cell of a row of a frame."""


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
        learned: key of a first model -> share of the corruption it had learned; by default what the records
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
    compared = [compare(sweep.table, against) for sweep in sweeps]
    check_against(compared, against, [record.method for record in ordered])
    page = _Page(facts, shares, Grids(grids))
    shown = [
        page.sweep(sweep, f"s{position}", pairs)
        for position, (sweep, pairs) in enumerate(zip(sweeps, compared, strict=True), 1)
    ]
    packed, thinned = page.cells.pack()
    packed |= {"charts": page.charts, "curves": curves_chart().to_dict(validate=False)}
    scripts = [f"(()=>{{{_vega()}\n}})();", asset("page.js")]
    return render(
        "sweep.html.j2",
        title=title,
        level=LEVEL,
        # In a function of its own: the names of a script are otherwise those of the window.
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        data=embedded_json(packed),
        facts=_header(ordered),
        warnings=_warnings(sweeps, shares),
        sweeps=shown,
        failures=[
            (
                record.method,
                sweep.title,
                _where(record),
                seed_text(record),
                record.status,
                record.error.strip() or "no reason was recorded",
            )
            for sweep in sweeps
            for record in sweep.records
            if record.status != "done"
        ],
        n_records=len(ordered),
        digest=digest(ordered),
        machines=_machines(ordered),
        grids=page.grids.files,
        thinned=thinned,
    )


def embedded_json(value: Any) -> Markup:
    """Return JSON that cannot end the ``<script>`` element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def digest(records: Sequence[Record]) -> str:
    """Return the SHA-256 over the sorted keys of the records, one a line."""
    lines = "".join(f"{key}\n" for key in sorted(record.key for record in records))
    return hashlib.sha256(lines.encode()).hexdigest()


class _Page:
    """Puts the sweeps into values for the template, and collects what their cells show."""

    def __init__(
        self, facts: Mapping[str, MethodFacts | None], learned: Mapping[str, float], grids: Grids
    ) -> None:
        self.facts, self.learned, self.grids = facts, learned, grids
        self.cells = Cells()
        self.charts: dict[str, Any] = {}

    def sweep(self, sweep: Sweep, identity: str, pairs: pd.DataFrame) -> Row:
        labels = sorted(sweep.method_of)
        self.card_of = {label: f"{identity}-card-{position}" for position, label in enumerate(labels)}
        shown: Row = {
            "id": identity, "title": sweep.title, "notes": sweep.notes, "paired": self._paired(pairs),
            "spread": self._spreads(seed_spreads(sweep.table)), "spread_meaning": SPREAD_MEANING,
            "further": self._further(further_measures(sweep.table)), "about": _about(sweep),
        }  # fmt: skip
        summary = None
        if sweep.corruption:
            table = measurements(sweep.corruption, sweep.title)
            summary = summarise(table)
            labels = list(summary.method)
            shown["seeds"] = len(summary.seeds)
            shown["map"] = self._map(summary, sweep, identity)
            shown["fronts"] = self._fronts(summary, sweep, identity)
            shown["methods"] = self._methods(summary, table)
        if sweep.forgetting:
            shown["forgetting"] = self._forgetting(sweep)
            shown["gaps"] = ", ".join(_heading(name) for name in GAPS)
        shown["cards"] = [self._card(label, summary, sweep) for label in labels]
        parts = [
            ("map", "Map"), ("fronts", "Accuracy and cost"), ("methods", "All methods"),
            ("forgetting", "Forgetting good data"), ("paired", "Paired comparison"),
            ("spread", "Spread over the seeds"), ("further", "Further measures"), ("cards", "Methods"),
        ]  # fmt: skip
        shown["parts"] = [(name, heading) for name, heading in parts if shown.get(name)]
        return shown

    # ---- map ----

    def _map(self, summary: Summary, sweep: Sweep, identity: str) -> Row:
        weak = not_learned(sweep.corruption, self.learned)
        runs: dict[tuple[str, float, float], list[Record]] = {}
        for record in sweep.corruption:
            where = (record.method, float(record.regularity or 0), float(record.discovery or 0))
            runs.setdefault(where, []).append(record)
        numbers, lines = {}, {}
        for where, records in runs.items():
            lines[where] = self._lines(summary, where, weak.get(where))
            numbers[where] = self.cells.add(
                Asked(
                    title=f"{where[0]}: {_place(summary, where)}",
                    lines=lines[where],
                    records=records,
                    columns=MAP_COLUMNS | (RECALIBRATED_COLUMNS if has_recalibrated(summary) else {}),
                    command=self.grids.command(records, sweep.method_of),
                )
            )
        self.charts[f"{identity}-map"] = map_chart(summary, weak, numbers).to_dict(validate=False)
        rows = []
        for method, row in summary.method.items():
            tiles: list[Row] = []
            for place in summary.places:
                where = (method, *place)
                cell = summary.cell.get(where)
                if cell is None:
                    tiles.append({"text": MISSING, "label": "not run"})
                    continue
                text = (
                    percent(cell["uxh"], 0) if is_known(cell["uxh"]) else "×" if cell["failed"] else MISSING
                )
                mark = "!" if is_known(cell["uxh"]) and cell["failed"] else ""
                mark += UNLEARNED if where in weak else ""
                label = f"{_place(summary, where)}: {lines[where][0]}"
                label += ", first model had not learned the corruption" if where in weak else ""
                tiles.append({"text": text + mark, "cell": numbers[where], "label": label})
            rows.append({"name": self._name(method, row["oracle"]), "tiles": tiles})
        return {
            "chart": f"{identity}-map",
            "regularities": list(summary.regularity_labels.values()),
            "rates": list(summary.discovery_labels.values()),
            "rows": rows,
        }

    def _lines(
        self, summary: Summary, where: tuple[str, float, float], weak: float | None
    ) -> tuple[str, ...]:
        cell = summary.cell[where]
        lines = []
        if not is_known(cell["uxh"]):
            lines.append("failed" if cell["failed"] else "skipped")
        else:
            half = cell["uxh_half_width"]
            spread = f"± {percent(half)} (95 % t-interval, {cell['seeds']} seeds)" if is_known(half) else ""
            lines.append(
                f"{percent(cell['uxh'])} % {spread}" if spread else f"{percent(cell['uxh'])} %, one seed"
            )
            attack = f", attack succeeds {percent(cell['asr'])}" if is_known(cell["asr"]) else ""
            lines.append(f"healed {percent(cell['healed'])}, utility {percent(cell['utility'])}{attack}")
            gradients = cell["sample_gradients"]
            if is_known(again := cell.get("uxh_recalibrated", math.nan)):
                attack = cell.get("asr_recalibrated", math.nan)
                said = f", attack succeeds {percent(attack)}" if is_known(attack) else ""
                lines.append(f"recalibrated {percent(again)}{said}")
            cost = f"{duration(cell['seconds'])}, {count(gradients)} sample gradients"
            whole = summary.cell.get(("retrain", *where[1:]), {}).get("sample_gradients")
            if where[0] != "retrain" and is_known(whole) and whole and is_known(gradients):
                share = gradients / whole
                cost += f" ({'under 1' if 0 < share < 0.01 else percent(share, 0)} % of retrain's)"
            lines.append(cost)
            if is_known(cell["rank"]):
                lines.append(f"place {cell['rank']:.0f} of {cell['ranked']:.0f} here, oracles apart")
            if cell["failed"]:
                lines.append(f"{cell['failed']} of {cell['failed'] + cell['seeds']} seeds failed")
        if weak is not None:
            lines.append(
                f"a first model had learned only {percent(weak, 0)} % of the corruption: this cell says little"
            )
        return tuple(lines)

    # ---- tables ----

    def _fronts(self, summary: Summary, sweep: Sweep, identity: str) -> Row:
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

    def _methods(self, summary: Summary, table: pd.DataFrame) -> Row:
        methods = summary.methods.rename_axis("method").reset_index()
        whole = summary.method.get("retrain", {}).get("sample_gradients") or float("nan")
        methods["share"] = methods["sample_gradients"] / whole
        places = len(summary.places)

        def mean(row: Any) -> Row:
            some = f" ({row.cells}/{places} cells)" if 0 < row.cells < places else ""
            return _standing(row, some)

        columns: list[Column] = [("mean U × H %", True, mean)]
        for regularity, label in summary.regularity_labels.items():
            if len(summary.regularity_labels) > 1:
                columns.append(_standings(f"{label} %", standings(table[table["regularity"] == regularity])))
        columns += [
            _percents("healed known %", "healed_known"),
            _percents("healed unknown %", "healed_unknown"),
            _percents("utility %", "utility"),
            _percents("ASR %", "asr"),
            *_recalibrated(summary),
            ("time per run", True, lambda row: _cell(row.seconds, duration(row.seconds))),
            ("gradients per run", True, lambda row: _cell(row.sample_gradients, count(row.sample_gradients))),
            ("of retrain %", True, lambda row: _cell(row.share, percent(row.share, 0))),
            ("MB", True, lambda row: _cell(row.peak_memory, megabytes(row.peak_memory))),
            _counts("failed"),
        ]
        return self._table("Methods of this sweep", methods, columns)

    def _forgetting(self, sweep: Sweep) -> list[Row]:
        by_row: dict[tuple[str, str], list[Record]] = {}
        for record in sweep.forgetting:
            by_row.setdefault((task_text(record), record.method), []).append(record)
        costs = {"seconds": "s", "sample_gradients": "gradients", "peak_memory": "MB"}
        tables = []
        for task, found in summarise_forgetting(sweep.table).items():
            names = shown_measures(found)
            measured = {name: f"{_heading(name)} %" for name in names if name != GAP}
            headings = [(f"{_heading(name)} %", name != GAP) for name in names]
            rows = []
            for method, row in found.iterrows():
                cells = [
                    _cell(row[name, "mean"], with_interval(row[name, "mean"], row[name, "half_width"]))
                    for name in names
                ]
                lines: tuple[str, ...] = ()
                if GAP in names and is_known(row[GAP, "mean"]):
                    gap = cells[names.index(GAP)]
                    gap["chips"] = _gap_chips(found, method)
                    lines = (f"average gap {gap['text']}",)
                cells.append(_cell(row["seconds", "mean"], duration(row["seconds", "mean"])))
                cells.append(_cell(row["failed", ""], number(row["failed", ""], ".0f")))
                asked = Asked(
                    title=f"{method}: {sweep.title}, Forget {task}",
                    lines=lines,
                    records=by_row[task, method],
                    columns={**measured, **costs},
                    command=self.grids.command(by_row[task, method], sweep.method_of),
                )
                name = {**self._name(method), "cell": self.cells.add(asked)}
                rows.append({"name": name, "cells": cells, "faint": method == REFERENCE})
            headings += [("time per run", False), ("failed", True)]
            tables.append({"label": f"Forget {task}", "headings": headings, "rows": rows})
        return tables

    def _paired(self, pairs: pd.DataFrame) -> list[Row]:
        def difference(row: Any) -> Row:
            tie = [("tied", "tie", None)] if row.tied and is_known(row.p) else []
            return _cell(row.difference, signed_interval(row.difference, row.half_width), tie)

        columns: list[Column] = [
            ("difference, points", True, difference),
            ("p", False, lambda row: _cell(row.p, number(row.p, ".2g"))),
            ("p, Holm", False, lambda row: _cell(row.p_holm, number(row.p_holm, ".2g"))),
            ("pairs", True, lambda row: _cell(row.pairs, str(row.pairs))),
            ("not paired", True, lambda row: _cell(row.not_paired, str(row.not_paired))),
        ]
        by = ["measure", "against", "chosen_by_mean"]
        return [
            self._table(f"{measure} against {against}", found, columns)
            | {"by_mean": by_mean, "against": against, "better": "more" if measure == "U x H" else "less"}
            for (measure, against, by_mean), found in pairs.groupby(by, sort=False)
        ]

    def _spreads(self, spreads: pd.DataFrame) -> list[Row]:
        def seeds(row: Any) -> Row:
            text = f"{counted(row.training_seeds, 'training')}, {counted(row.runs, 'run')}"
            return _cell(row.training_seeds, text)

        columns: list[Column] = [
            ("mean %", True, lambda row: _cell(row.mean, with_interval(row.mean, row.half_width))),
            _percents("sd training", "sd_training"),
            _percents("sd unlearning", "sd_unlearning"),
            ("seeds", False, seeds),
            ("in words", False, lambda row: _cell(None, row.in_words)),
        ]
        return [
            self._table(f"{measure}, forget {task}" if task else measure, found, columns)
            for (task, measure), found in spreads.groupby(["task", "measure"], sort=False)
        ]

    def _further(self, measures: pd.DataFrame) -> list[Row]:
        def value(row: Any) -> Row:
            spread = f" ±{row.half_width:.2g}" if is_known(row.half_width) else ""
            return _cell(row.mean, f"{row.mean:.3g}{spread}")

        def beside(row: Any, name: str) -> Row:
            found = getattr(row, name)
            within = name == "gap" and found <= row.floor  # false where one is NaN
            # Rounding leaves some 1e-17 where a model is compared with itself.
            text = "0" if abs(found) < 1e-12 else number(found, ".3g")
            return _cell(found, text, [("tied", "in the floor", None)] if within else [])

        tables = []
        for measure, found in measures.groupby("measure"):
            names = [name for name in ("retrained", "gap", "floor", "oracle") if found[name].notna().any()]
            columns: list[Column] = [
                ("value", True, value),
                *((name, name != "gap", lambda row, name=name: beside(row, name)) for name in names),
                _counts("runs"),
            ]
            tables.append(self._table(measure, found, columns))
        return tables

    def _table(self, label: str, found: pd.DataFrame, columns: Sequence[Column]) -> Row:
        """A row for each row of ``found``, whose column ``method`` names it."""
        rows = [
            {
                "name": self._name(row.method, getattr(row, "oracle", False) is True),
                "cells": [make(row) for _, _, make in columns],
                "faint": getattr(row, "oracle", False) is True,
            }
            for row in found.itertuples()
        ]
        return {"label": label, "headings": [column[:2] for column in columns], "rows": rows}

    # ---- cards ----

    def _name(self, method: str, oracle: bool = False) -> Row:
        return {"text": method, "href": f"#{self.card_of[method]}", "more": " (oracle)" if oracle else ""}

    def _card(self, label: str, summary: Summary | None, sweep: Sweep) -> Row:
        method = sweep.method_of[label]
        facts = self.facts.get(method)
        entries: list[tuple[str, str]] = []
        if facts is None:
            entries.append(
                ("About", f"{method} is not installed here, so nothing is known of its needs and source.")
            )
        else:
            entries.append(("Needs", "; ".join(_NEEDS.get(need, need) for need in facts.needs) or "nothing"))
            if facts.preparation:
                how = _PREPARED.get(facts.preparation, facts.preparation)
                entries.append(("Prepared", f"the first training must have been done {how}"))
            entries.append(("Touches", facts.touches))
            if facts.source:
                entries.append(("Source", facts.source))
            share = facts.retraining_share
            cost = f"{'under 1' if share < 0.01 else percent(share, 0)} % of a retraining's passes at default settings"
            entries.append(("Expected cost", "none" if facts.name == BASELINE else cost))
        settings = {settings_text(record.settings) for record in sweep.records if record.method == label}
        entries += [("Settings", text) for text in sorted(settings - {""})]
        worst = None
        if summary is not None and label in summary.method:
            cells = summary.cells.loc[[label]]
            cells = cells[cells["uxh"].notna() | (cells["failed"] > 0)]
            cells = cells.assign(order=cells["uxh"].fillna(-1.0)).sort_values("order", kind="stable")
            worst = [
                f"{_place(summary, row.Index)}: "
                + (
                    f"{percent(row.uxh)} % (healed {percent(row.healed)}, utility {percent(row.utility)})"
                    if is_known(row.uxh)
                    else "failed"
                )
                for row in cells.head(_WORST).itertuples()
            ]
        about = facts.summary if facts else ""
        return {"id": self.card_of[label], "label": label, "about": about, "entries": entries, "worst": worst}


def _cell(value: float | None, text: str = MISSING, chips: Sequence[tuple[str, str, str | None]] = ()) -> Row:
    """A table's cell, which sorts by ``value``; a chip is (kind, text, title)."""
    return {"value": f"{value:.6g}" if is_known(value) else None, "text": text, "chips": chips}


def _standing(row: Any, more: str = "") -> Row:
    """The cell of a method's standing, see :func:`standings`; None where it has none."""
    if row is None:
        return _cell(None)
    title = f"paired t-test against the best: p = {row.p:.2g}" if is_known(row.p) else None
    kinds = [kind for kind in (row.mark, "tied" if row.tied else "") if kind in _CHIPS]
    chips = [(kind, _CHIPS[kind], title) for kind in kinds]
    return _cell(row.mean, with_interval(row.mean, row.half_width) + more, chips)


def _standings(heading: str, found: pd.DataFrame) -> Column:
    rows = {row.Index: row for row in found.itertuples()}
    return heading, True, lambda row: _standing(rows.get(row.method))


def _percents(heading: str, name: str) -> Column:
    return heading, True, lambda row: _cell(getattr(row, name), percent(getattr(row, name)))


def _recalibrated(summary: Summary) -> list[Column]:
    """What normalisation statistics hide, where runs were measured with those of the retain set too."""
    if not has_recalibrated(summary):
        return []
    columns = [_percents("U × H recalibrated %", "uxh_recalibrated")]
    if "asr_recalibrated" in summary.methods:
        columns.append(_percents("ASR recalibrated %", "asr_recalibrated"))

    def hidden(row: Any) -> Row:
        lost = row.uxh - row.uxh_recalibrated
        return _cell(lost, percent(lost))

    return [*columns, ("hidden by normalisation statistics, points", True, hidden)]


def _counts(name: str) -> Column:
    return name, True, lambda row: _cell(getattr(row, name), str(getattr(row, name)))


def _gap_chips(found: pd.DataFrame, method: str) -> list[tuple[str, str, str | None]]:
    """Mark the two smallest gaps, and those whose interval overlaps that of the smallest."""
    gaps = found[GAP].dropna(subset="mean").sort_values("mean", kind="stable")
    own, best, ranks = gaps.loc[method], gaps.iloc[0], sorted(gaps["mean"].unique())
    chips: list[tuple[str, str, str | None]] = []
    if own["mean"] in ranks[:2]:
        chips.append(("best", "best", None) if own["mean"] == ranks[0] else ("second", "2nd", None))
    # A mean without an interval compares as unequal to everything.
    if own["mean"] > ranks[0] and own["mean"] - best["mean"] <= own["half_width"] + best["half_width"]:
        chips.append(("tied", "tie", None))
    return chips


def _heading(name: str) -> str:
    return SHOWN[name].replace("\n", " ")


def _place(summary: Summary, where: tuple[str, float, float]) -> str:
    return f"{summary.regularity_labels[where[1]]}, {summary.discovery_labels[where[2]]} known"


def _where(record: Record) -> str:
    if record.regularity is None or record.discovery is None:
        return task_text(record)
    return f"{regularity_name(record.regularity)}, {100 * record.discovery:.3g}% known"


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


def _warnings(sweeps: Sequence[Sweep], learned: Mapping[str, float]) -> list[str]:
    """What a reader has to know before the numbers."""
    found: list[str] = []
    for sweep in sweeps:
        if len({record.seed for record in sweep.records}) == 1:
            found.append(
                f"{sweep.title}: one seed. No interval can be given; single cells may move by tens of points."
            )
        weak: dict[str, dict[int, float]] = {}
        for record in sweep.corruption:
            for share in not_learned([record], learned).values():
                weak.setdefault(regularity_name(record.regularity or 0.0), {})[record.seed] = share
        for name, shares in weak.items():
            listed = ", ".join(
                f"{percent(share, 0)} % (seed {seed})" for seed, share in sorted(shares.items())
            )
            found.append(
                f"{sweep.title}, {name}: the first model had learned only {listed} of the corruption, under "
                f"{percent(LEARNED_ENOUGH, 0)} %. There was little to unlearn: cells marked {UNLEARNED} say little."
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
    return found


def _machines(records: Sequence[Record]) -> Row:
    names = list(dict.fromkeys(name for record in records for name in record.provenance if name != "created"))
    found: Counter[tuple[str, ...]] = Counter()
    dates: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        where = tuple(record.provenance.get(name, MISSING) for name in names)
        found[where] += 1
        dates.setdefault(where, []).append(record.provenance.get("created", MISSING))
    rows = [
        [*where, " to ".join(dict.fromkeys((min(dates[where]), max(dates[where])))), found[where]]
        for where in sorted(found)
    ]
    return {"headings": [*names, "created", "records"], "rows": rows}


def _about(sweep: Sweep) -> list[tuple[str, str]]:
    """What all records of a sweep share."""
    first = sweep.records[0]
    recipe = {name: value for name, value in first.recipe.items() if value is not None}
    entries = [("Records", str(len(sweep.records))), ("First training", settings_text(recipe))]
    if sweep.corruption:
        task = sweep.corruption[0].task_settings.items()
        shared = {name: value for name, value in task if name not in ("regularity", "discovery", "seed")}
        entries.append(("Corruption", settings_text({"n_corrupted": first.n_corrupted, **shared})))
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
