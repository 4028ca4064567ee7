"""Which method to use in a given situation, by what the records show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

import pandas as pd

from expunge.choice import RELEARN, RETRAIN, Choice, Situation, choose
from expunge.errors import InvalidInput
from expunge.results.frame import place_text
from expunge.results.method_facts import NEEDS, MethodFacts
from expunge.results.summary import BASELINE, paired
from expunge.results.sweeps import Sweep, sort_into_sweeps
from expunge.store.record import Record

WORKS = 0.5
"""Mean Utility x Healed under which a method counts as not working: half healed at full utility."""
CLOSE = 0.02
"""Difference in mean Utility x Healed that is not worth twice the cost."""
PACKAGED = "evidence_digits.json"

_PLACE = ["sweep", "regularity", "discovery"]
_GRANTED = {"recipe"}  # whoever trained the model knows how


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Records of corruption tasks and what is to be known about them.

    Args:
        source: where they come from, in words.
        records: with a place on the map; others are ignored.
        reservations: what a reader has to know before relying on them, as sentences.
    """

    source: str
    records: Sequence[Record]
    reservations: tuple[str, ...] = ()


def packaged_evidence() -> Evidence:
    """Return the figures that come with the package: every applicable method on digits, three seeds."""
    text = resources.files("expunge.results").joinpath(PACKAGED).read_text(encoding="utf-8")
    content = json.loads(text)
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]
    records = [
        Record(
            key=f"{content['source']}:{number}",
            data=content["data"],
            model=content["model"],
            oracle=row["method"] in content["oracles"],
            **row,
        )
        for number, row in enumerate(rows)
    ]
    return Evidence(
        source=f"figures shipped with expunge ({content['source']}, {content['date']}, {content['hardware']})",
        records=records,
        reservations=tuple(content["reservations"]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)  # a Series has no single answer to ==
class Candidate:
    """A method over the cells that count.

    Args:
        method: name of the method.
        cells: mean Utility x Healed over the seeds by (sweep, regularity, discovery); a failed run counts as 0.
        cost: the larger of its shares of retrain's seconds and sample gradients; without a retraining
            among the records, what the method declares. None where nothing is known.
        measured: whether ``cost`` comes from records.
    """

    method: str
    cells: pd.Series[float]
    cost: float | None
    measured: bool

    @property
    def mean(self) -> float:
        """Mean over the cells, a fraction."""
        return float(self.cells.mean())

    @property
    def worst(self) -> float:
        """Value of the worst cell, a fraction."""
        return float(self.cells.min())

    @property
    def worst_place(self) -> str:
        """Where that is: ``poison, 10% known``."""
        return place_text(*self.cells.idxmin()[1:])


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to use, and what the records say of it.

    Args:
        choice: the method, as "expunge clean" chooses it.
        figures: that method in the records; None where it was not run in every cell that counts.
        other: the usable method with the highest mean beside it.
        safer: a usable method whose worst cell is better than the choice's, if there is one.
        cheaper: the cheapest usable method within :data:`CLOSE` of the choice and at most at half its cost.
        p: paired test of the choice against the other over the seeds; None where none can be made.
        retrain: retraining without what is known, whether usable here or not; None if it was not run.
        ranking: every usable method, best first.
        excluded: method -> why it cannot be used here.
        thin: why the evidence is weak, as sentences.
    """

    choice: Choice
    figures: Candidate | None
    other: Candidate | None
    safer: Candidate | None
    cheaper: Candidate | None
    p: float | None
    retrain: Candidate | None
    ranking: tuple[Candidate, ...]
    excluded: Mapping[str, str]
    thin: tuple[str, ...]


def advise(situation: Situation, evidence: Evidence, facts: Callable[[str], MethodFacts | None]) -> Advice:
    """Return the method for a situation, and what the evidence says of it and of others.

    The method is that of :func:`expunge.choice.choose`, with the price of relearning as the evidence has it. The cells
    that count are those at the stated regularity and discovery rate, or, where the map has no such point, at its
    neighbours on either side; all of them where a value is unknown. Methods are ranked by their mean over these cells;
    a failed run counts as 0. Where retraining can be had, none that costs more is usable.

    Args:
        situation: what is known and what there is; how to retrain counts as known.
        evidence: records to judge by.
        facts: name of a method -> what it needs; None for one that is not installed.

    Raises:
        InvalidInput: no record with a place on the map, or nothing to work with.
    """
    sweeps = [sweep for sweep in sort_into_sweeps(evidence.records) if sweep.on_map]
    if not sweeps:
        raise InvalidInput("the evidence has no record of a corruption task; run 'expunge map' first")
    runs = pd.concat([_runs(sweep, situation) for sweep in sweeps], ignore_index=True)
    ran = runs[runs["status"] != "skipped"]
    means = ran.groupby([*_PLACE, "method"])["uxh"].mean().unstack("method")
    means = means.reindex(pd.MultiIndex.from_frame(runs[_PLACE].drop_duplicates().sort_values(_PLACE)))
    candidates, excluded = _candidates(sweeps, means, _costs(ran), situation, facts)
    relearn, declares = candidates.get(RELEARN), facts(RELEARN)
    price = declares.retraining_share if declares else None
    if relearn is not None and relearn.cost is not None:
        price = relearn.cost
    choice = choose(replace(situation, recipe=True, price=price))
    ranking = sorted(
        (found for label, found in candidates.items() if label not in excluded),
        key=lambda found: (-found.mean, found.cost or 0.0, found.method),
    )
    figures = candidates.get(choice.method)
    other = next((found for found in ranking if found.method != choice.method), None)
    safest = max(ranking, key=lambda found: found.worst, default=None)
    return Advice(
        choice=choice,
        figures=figures,
        other=other,
        safer=safest if figures and safest and safest.worst > figures.worst + 0.01 else None,
        cheaper=_cheaper(figures, ranking),
        p=_test(figures, other, ran),
        retrain=candidates.get(RETRAIN),
        ranking=tuple(ranking),
        excluded=excluded,
        thin=_thin(sweeps, runs, situation),
    )


def _candidates(
    sweeps: Sequence[Sweep],
    means: pd.DataFrame,
    costs: pd.Series[float],
    situation: Situation,
    facts: Callable[[str], MethodFacts | None],
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """The methods that were run in every cell that counts, and why others, or some of them, cannot be used."""
    candidates: dict[str, Candidate] = {}
    excluded: dict[str, str] = {}
    method_of = {label: method for sweep in sweeps for label, method in sweep.method_of.items()}
    for label, method in sorted(method_of.items()):
        known, cost = facts(method), costs.get(label, float("nan"))
        if label in means and means[label].notna().all():
            measured = not math.isnan(cost)
            declared = known.retraining_share if known else None
            candidates[label] = Candidate(
                method=label,
                cells=means[label],
                cost=float(cost) if measured else declared,
                measured=measured,
            )
        if reason := _obstacle(known, method, situation, candidates.get(label)):
            excluded[label] = reason
    return candidates, excluded


def _runs(sweep: Sweep, situation: Situation) -> pd.DataFrame:
    """A sweep's runs in the cells that count; what failed has a value of 0."""
    columns = [*_PLACE, "method", "seed", "status", "uxh", "seconds", "sample_gradients"]
    rows = [[sweep.title, *(getattr(record, name) for name in columns[1:])] for record in sweep.records]
    runs = pd.DataFrame(rows, columns=columns).fillna({"uxh": 0.0})
    runs = runs.astype(dict.fromkeys(("uxh", "seconds", "sample_gradients"), float))
    near = [
        runs[name].isin(_near(runs[name].unique(), getattr(situation, name)))
        for name in ("regularity", "discovery")
    ]
    return runs[near[0] & near[1]]


def _near(values: Sequence[float], wanted: float | None) -> set[float]:
    """The value itself where there is one, else its neighbours; all for None."""
    if wanted is None:
        return set(values)
    if same := {value for value in values if math.isclose(value, wanted)}:
        return same
    below = sorted(value for value in values if value < wanted)
    above = sorted(value for value in values if value > wanted)
    return {*below[-1:], *above[:1]}


def _costs(runs: pd.DataFrame) -> pd.Series[float]:
    """Method -> the larger of its shares of retrain's seconds and sample gradients, mean over the sweeps."""
    means = runs.groupby(["sweep", "method"])[["seconds", "sample_gradients"]].mean()
    whole = runs[runs["method"] == RETRAIN].groupby("sweep")[["seconds", "sample_gradients"]].mean()
    shares = means / whole.where(whole > 0).reindex(means.index, level="sweep")
    return shares.max(axis="columns").groupby("method").mean()


def _obstacle(
    facts: MethodFacts | None, method: str, situation: Situation, found: Candidate | None
) -> str | None:
    """Why a method is not to be chosen here, None if it may be."""
    if method == BASELINE:
        return "does nothing"
    if facts is None:
        return "is not installed here"
    if facts.oracle:
        return "is an oracle"
    if facts.preparation:
        return "needs an original model that was trained for it"
    lacking = set(facts.needs) - _GRANTED
    lacking -= {name for name, there in (("retain", situation.retain), ("forget", situation.forget)) if there}
    if lacking:
        return f"needs {NEEDS.get(min(lacking), min(lacking))}"
    if found is None:
        return "was not run in every cell that counts"
    if situation.budget is not None and found.cost is not None and found.cost > situation.budget:
        return "is over the budget"
    retrainable = situation.retain and (situation.budget is None or situation.budget >= 1)
    if retrainable and method != RETRAIN and found.cost is not None and found.cost > 1:
        return "costs more than retraining"
    return None


def _cheaper(choice: Candidate | None, ranking: Sequence[Candidate]) -> Candidate | None:
    if choice is None or choice.cost is None:
        return None
    close = [
        found
        for found in ranking
        if found.cost is not None and found.mean >= choice.mean - CLOSE and found.cost <= choice.cost / 2
    ]
    return min(close, key=lambda found: found.cost or 0.0, default=None)


def _test(choice: Candidate | None, other: Candidate | None, runs: pd.DataFrame) -> float | None:
    # Seeds of several sweeps are no repetitions of each other.
    if choice is None or other is None or runs["sweep"].nunique() != 1:
        return None
    both = runs[runs["method"].isin([choice.method, other.method])]
    values = both.groupby([*_PLACE, "seed", "method"])["uxh"].mean().unstack("method")
    p = float(paired(values, other.method, ["seed"]).loc[choice.method, "p"])
    return None if math.isnan(p) else p


def _thin(sweeps: Sequence[Sweep], runs: pd.DataFrame, situation: Situation) -> tuple[str, ...]:
    found = []
    data = sorted({record.data for sweep in sweeps for record in sweep.records})
    if len(data) == 1:
        found.append(f"It rests on one data set ({data[0]}); yours may behave otherwise.")
    if len({record.seed for sweep in sweeps for record in sweep.records}) == 1:
        found.append("It rests on one seed: differences of a few points mean nothing.")
    for name in ("regularity", "discovery"):
        wanted = getattr(situation, name)
        used = sorted(runs[name].unique())
        if wanted is not None and not any(math.isclose(value, wanted) for value in used):
            points = ", ".join(f"{value:g}" for value in used)
            found.append(f"Nothing was run at {name} {wanted:g}; the nearest points are {points}.")
    return tuple(found)
