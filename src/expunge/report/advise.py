"""Which method to use in a given situation, by what the records show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from expunge.choice import RELEARN, RETRAIN, Choice, Situation, choose
from expunge.errors import InvalidInput
from expunge.report.comparison import LEVEL, averaged, paired_p
from expunge.report.evidence import Evidence
from expunge.report.method_facts import MethodFacts
from expunge.report.summary import BASELINE, Place
from expunge.report.sweeps import Sweep, sort_into_sweeps
from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name

WORKS = 0.5
"""Mean Utility x Healed under which a method counts as not working: half healed at full utility."""
CLOSE = 0.02
"""Difference in mean Utility x Healed that is not worth twice the cost."""
_GRANTED = {"recipe"}  # whoever trained the model knows how


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One cell of the map that advice rests on.

    Args:
        sweep: title of the sweep.
        place: (regularity, discovery).
        uxh: mean Utility x Healed over the seeds, a fraction; a failed seed counts as 0.
        seeds: number of seeds.
    """

    sweep: str
    place: Place
    uxh: float
    seeds: int

    def __str__(self) -> str:
        return f"{regularity_name(self.place[0])}, {100 * self.place[1]:.3g}% known"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method over the cells that count.

    Args:
        method: name of the method.
        mean: mean Utility x Healed over the cells, a fraction.
        spots: the cells.
        cost: the larger of its shares of retrain's seconds and sample gradients; without a retraining
            among the records, what the method declares. None where nothing is known.
        measured: whether ``cost`` comes from records.
    """

    method: str
    mean: float
    spots: tuple[Spot, ...]
    cost: float | None
    measured: bool

    @property
    def worst(self) -> Spot:
        """The cell with the lowest value."""
        return min(self.spots, key=lambda spot: spot.uxh)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to use, and what the records say of it.

    Args:
        choice: the method, as "expunge clean" chooses it.
        figures: that method in the records; None where it was not run in every cell that counts.
        other: the usable method with the highest mean beside it.
        safer: a usable method whose worst cell is better than the choice's, if there is one.
        cheaper: the cheapest usable method within :data:`CLOSE` of the choice and at most at half its cost.
        works: whether the choice reaches :data:`WORKS`; None without records of it.
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
    works: bool | None
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
    sweeps = [sweep for sweep in sort_into_sweeps(evidence.records) if sweep.corruption]
    if not sweeps:
        raise InvalidInput("the evidence has no record of a corruption task; run 'expunge map' first")
    places = {sweep.title: _places(sweep, situation) for sweep in sweeps}
    candidates: dict[str, Candidate] = {}
    excluded: dict[str, str] = {}
    method_of = {label: method for sweep in sweeps for label, method in sweep.method_of.items()}
    for label, method in sorted(method_of.items()):
        known = facts(method)
        found = _candidate(label, sweeps, places, known)
        if found is not None and label in (RETRAIN, RELEARN):
            candidates[label] = found
        if reason := _obstacle(known, method, situation, found):
            excluded[label] = reason
        elif found is not None:
            candidates[label] = found
    measured, declared = candidates.get(RELEARN), facts(RELEARN)
    price = declared.retraining_share if declared else None
    if measured is not None and measured.cost is not None:
        price = measured.cost
    choice = choose(replace(situation, recipe=True, price=price))
    ranking = sorted(
        (found for label, found in candidates.items() if label not in excluded),
        key=lambda found: (-found.mean, found.cost or 0.0, found.method),
    )
    figures = candidates.get(choice.method)
    other = next((found for found in ranking if found.method != choice.method), None)
    safest = max(ranking, key=lambda found: found.worst.uxh, default=None)
    safer = safest if figures and safest and safest.worst.uxh > figures.worst.uxh + 0.01 else None
    return Advice(
        choice=choice,
        figures=figures,
        other=other,
        safer=safer,
        cheaper=_cheaper(figures, ranking),
        works=None if figures is None else figures.mean >= WORKS,
        p=_test(figures, other, sweeps, places),
        retrain=candidates.get(RETRAIN),
        ranking=tuple(ranking),
        excluded=excluded,
        thin=_thin(sweeps, places, situation),
    )


def tied(advice: Advice) -> bool | None:
    """Whether choice and the best other method are not told apart; None where no test can be made."""
    return None if advice.p is None else advice.p >= LEVEL


def _cheaper(choice: Candidate | None, ranking: Sequence[Candidate]) -> Candidate | None:
    if choice is None or choice.cost is None:
        return None
    close = [
        found
        for found in ranking
        if found.cost is not None and found.mean >= choice.mean - CLOSE and found.cost <= choice.cost / 2
    ]
    return min(close, key=lambda found: found.cost or 0.0, default=None)


def _places(sweep: Sweep, situation: Situation) -> list[Place]:
    found = sorted({(record.regularity or 0.0, record.discovery or 0.0) for record in sweep.corruption})
    rows = _near([row for row, _ in found], situation.regularity)
    columns = _near([column for _, column in found], situation.discovery)
    return [(row, column) for row, column in found if row in rows and column in columns]


def _near(values: Sequence[float], wanted: float | None) -> set[float]:
    """The value itself where there is one, else its neighbours; all for None."""
    if wanted is None:
        return set(values)
    if any(math.isclose(value, wanted) for value in values):
        return {value for value in values if math.isclose(value, wanted)}
    below = max((value for value in values if value < wanted), default=None)
    above = min((value for value in values if value > wanted), default=None)
    return {value for value in (below, above) if value is not None}


def _runs(label: str, sweep: Sweep, places: Sequence[Place]) -> dict[Place, list[Record]]:
    runs: dict[Place, list[Record]] = {}
    for record in sweep.corruption:
        place = (record.regularity or 0.0, record.discovery or 0.0)
        if record.method == label and place in places and record.status != "skipped":
            runs.setdefault(place, []).append(record)
    return runs


def _candidate(
    label: str, sweeps: Sequence[Sweep], places: Mapping[str, Sequence[Place]], facts: MethodFacts | None
) -> Candidate | None:
    """Return the method over the cells that count, None where it was not run in all of them."""
    spots: list[Spot] = []
    shares: list[float] = []
    for sweep in sweeps:
        wanted = places[sweep.title]
        runs, whole = _runs(label, sweep, wanted), _runs(RETRAIN, sweep, wanted)
        if set(runs) != set(wanted):
            return None
        for place, records in sorted(runs.items()):
            values = [record.uxh or 0.0 for record in records]
            spots.append(
                Spot(
                    sweep=sweep.title,
                    place=place,
                    uxh=statistics.fmean(values),
                    seeds=len({record.seed for record in records}),
                )
            )
        costs = [_share(runs, whole, name) for name in ("seconds", "sample_gradients")]
        shares += [max(known)] if (known := [cost for cost in costs if cost is not None]) else []
    if not spots:
        return None
    declared = facts.retraining_share if facts else None
    return Candidate(
        method=label,
        mean=statistics.fmean(spot.uxh for spot in spots),
        spots=tuple(spots),
        cost=statistics.fmean(shares) if shares else declared,
        measured=bool(shares),
    )


def _share(
    ours: Mapping[Place, Sequence[Record]], whole: Mapping[Place, Sequence[Record]], name: str
) -> float | None:
    mine, theirs = (
        [
            float(value)
            for records in runs.values()
            for record in records
            if (value := getattr(record, name)) is not None
        ]
        for runs in (ours, whole)
    )
    if not mine or not theirs or not statistics.fmean(theirs):
        return None
    return statistics.fmean(mine) / statistics.fmean(theirs)


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
        return "needs a first training that was prepared for it"
    lacking = set(facts.needs) - _GRANTED
    lacking -= {name for name, there in (("retain", situation.retain), ("forget", situation.forget)) if there}
    if lacking:
        return f"needs {_LACKING.get(min(lacking), min(lacking))}"
    if found is None:
        return "was not run in every cell that counts"
    if situation.budget is not None and found.cost is not None and found.cost > situation.budget:
        return "is over the budget"
    retrainable = situation.retain and (situation.budget is None or situation.budget >= 1)
    if retrainable and method != RETRAIN and found.cost is not None and found.cost > 1:
        return "costs more than retraining"
    return None


_LACKING = {
    "retain": "the remaining training data",
    "forget": "the known bad examples",
    "classes": "whole classes to be forgotten",
    "unseen": "data the model has not seen",
    "codes": "a model trained with mnemonic codes",
}


def _test(
    choice: Candidate | None,
    other: Candidate | None,
    sweeps: Sequence[Sweep],
    places: Mapping[str, Sequence[Place]],
) -> float | None:
    # Seeds of several sweeps are no repetitions of each other.
    if choice is None or other is None or len(sweeps) != 1:
        return None
    both = []
    for candidate in (choice, other):
        runs = _runs(candidate.method, sweeps[0], places[sweeps[0].title])
        both.append(
            averaged(
                (record.seed, place, record.uxh or 0.0) for place, found in runs.items() for record in found
            )
        )
    return paired_p(*both)


def _thin(
    sweeps: Sequence[Sweep], places: Mapping[str, Sequence[Place]], situation: Situation
) -> tuple[str, ...]:
    found = []
    data = sorted({record.data for sweep in sweeps for record in sweep.corruption})
    if len(data) == 1:
        found.append(f"It rests on one data set ({data[0]}); yours may behave otherwise.")
    seeds = {record.seed for sweep in sweeps for record in sweep.corruption}
    if len(seeds) == 1:
        found.append("It rests on one seed: differences of a few points mean nothing.")
    for name, wanted, axis in (
        ("regularity", situation.regularity, 0),
        ("discovery", situation.discovery, 1),
    ):
        used = {place[axis] for rows in places.values() for place in rows}
        if wanted is not None and not any(math.isclose(value, wanted) for value in used):
            told = ", ".join(f"{value:g}" for value in sorted(used))
            found.append(f"Nothing was run at {name} {wanted:g}; the nearest points are {told}.")
    return tuple(found)
