from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_records import make
from scipy import stats

from expunge.choice import Situation, choose
from expunge.errors import InvalidInput
from expunge.results.advice import WORKS, Advice, Evidence, advise, packaged_evidence
from expunge.results.method_facts import MethodFacts, method_facts
from expunge.results.summary import LEVEL

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "digits-methods.csv"


def facts(name: str, **changed: Any) -> MethodFacts:
    values: dict[str, Any] = {
        "name": name,
        "summary": "",
        "needs": ("forget", "retain"),
        "touches": "",
        "retraining_share": 0.3,
    }
    return MethodFacts(**(values | changed))


def plain(name: str) -> MethodFacts:
    special: dict[str, dict[str, Any]] = {
        "retrain": {"needs": ("retain", "recipe"), "retraining_share": 1.0},
        "lean": {"needs": ("forget",)},
        "ideal": {"oracle": True},
        "tied": {"preparation": "example_tied"},
        "classy": {"needs": ("classes", "retain")},
    }
    return facts(name, **special.get(name, {}))


def lean(name: str) -> MethodFacts:
    return facts(name, needs=("forget",))


def grid(**values: dict[tuple[float, float], float | None]) -> Evidence:
    """values[method][place]; None for a failed run."""
    return Evidence(
        source="test",
        records=[
            make(
                key=f"{method}{place}", method=method, regularity=place[0], discovery=place[1], uxh=uxh,
                status="failed" if uxh is None else "done", seconds=10.0 if method == "retrain" else 2.0,
                sample_gradients=1000 if method == "retrain" else 500 if method == "costly" else 100,
            )
            for method, by_place in values.items()
            for place, uxh in by_place.items()
        ],
    )  # fmt: skip


LOW, HIGH, POISON = (0.0, 0.1), (0.0, 1.0), (1.0, 0.1)


def names(advice: Advice) -> list[str]:
    return [found.method for found in advice.ranking]


def test_the_ranking_is_by_the_mean_over_the_cells_that_count() -> None:
    evidence = grid(
        none=dict.fromkeys((LOW, HIGH, POISON), 0.0),
        retrain={LOW: 0.1, HIGH: 0.9, POISON: 0.0},
        relearn={LOW: 0.9, HIGH: 0.95, POISON: 0.3},
        steady={LOW: 0.7, HIGH: 0.7, POISON: 0.6},
    )
    advice = advise(Situation(), evidence, plain)
    assert advice.choice.method == "relearn"
    assert advice.figures is not None
    assert advice.figures.mean == pytest.approx((0.9 + 0.95 + 0.3) / 3)
    assert advice.figures.worst_place == "poison, 10% known"
    assert advice.other is not None
    assert advice.other.method == "steady"
    assert advice.safer is advice.other
    assert advice.figures is not None
    assert advice.figures.mean >= WORKS
    assert advice.p is None
    assert advice.excluded["none"] == "does nothing"
    at_poison = advise(Situation(regularity=1.0, discovery=0.1), evidence, plain)
    assert at_poison.choice.method == "relearn"  # as clean chooses; the figures are shown beside it
    assert names(at_poison)[0] == "steady"
    assert [place[1:] for place in at_poison.ranking[0].cells.index] == [POISON]


def test_between_two_points_both_count() -> None:
    evidence = grid(a={LOW: 0.2, HIGH: 0.8, POISON: 0.9}, b={LOW: 0.6, HIGH: 0.6, POISON: 0.0})
    advice = advise(Situation(regularity=0.0, discovery=0.4), evidence, plain)
    assert [place[1:] for place in advice.ranking[0].cells.index] == [LOW, HIGH]
    assert names(advice) == ["b", "a"]
    assert "Nothing was run at discovery 0.4; the nearest points are 0.1, 1." in advice.thin
    outside = advise(Situation(regularity=0.0, discovery=0.05), evidence, plain)
    assert [place[1:] for place in outside.ranking[0].cells.index] == [LOW]


@pytest.mark.parametrize("discovery", [None, 0.1, 1.0])
@pytest.mark.parametrize("regularity", [None, 0.0, 1.0])
@pytest.mark.parametrize("retain", [True, False])
def test_the_advice_is_the_choice_of_clean(
    discovery: float | None, regularity: float | None, retain: bool
) -> None:
    case = Situation(discovery=discovery, regularity=regularity, retain=retain)
    advice = advise(case, packaged_evidence(), method_facts)
    # Sizes as the shipped figures have them; where nothing is measured, what the method declares.
    assert advice.choice.method == choose(replace(case, recipe=True, price=0.2)).method


def test_nothing_that_costs_more_than_retraining_is_recommended() -> None:
    values = {LOW: 0.9}
    evidence = grid(retrain={LOW: 0.1}, relearn=values, dear=values)
    for record in evidence.records:
        if record.method in ("relearn", "dear"):
            object.__setattr__(record, "sample_gradients", 1210)
    advice = advise(Situation(discovery=0.1), evidence, plain)
    assert advice.choice.method == "retrain"
    assert "121%" in advice.choice.why
    assert advice.figures is not None
    assert advice.figures.method == "retrain"
    assert advice.excluded["dear"] == advice.excluded["relearn"] == "costs more than retraining"
    # Where retraining cannot be had, its price says nothing.
    assert "dear" not in advise(Situation(discovery=0.1, retain=False), evidence, lean).excluded


def test_who_cannot_be_used() -> None:
    names = ("retrain", "both", "lean", "ideal", "tied", "classy", "costly", "gone")
    evidence = grid(**{name: {LOW: 0.9} for name in names}, part={HIGH: 1.0})
    found = advise(Situation(discovery=0.1), evidence, lambda name: None if name == "gone" else plain(name))
    assert found.excluded == {
        "ideal": "is an oracle",
        "tied": "needs an original model that was trained for it",
        "classy": "needs whole classes to be forgotten",
        "gone": "is not installed here",
        "part": "was not run in every cell that counts",
    }
    without = advise(Situation(discovery=0.1, retain=False), evidence, plain)
    assert {candidate.method for candidate in without.ranking} == {"lean", "gone"} - {"gone"}
    assert without.excluded["retrain"] == "needs the remaining training data"
    blind = advise(Situation(discovery=0.1, forget=False), evidence, plain)
    assert {candidate.method for candidate in blind.ranking} == {"retrain"}
    cheap = advise(Situation(discovery=0.1, budget=0.3), evidence, plain)
    assert {candidate.method for candidate in cheap.ranking} == {"both", "lean", "gone"}
    assert cheap.excluded["costly"] == cheap.excluded["retrain"] == "is over the budget"


def test_cost_is_the_larger_share_and_else_what_is_declared() -> None:
    evidence = grid(retrain={LOW: 0.1}, cheap={LOW: 0.5}, costly={LOW: 0.6})
    costs = {found.method: found.cost for found in advise(Situation(), evidence, plain).ranking}
    assert costs == {"retrain": 1.0, "cheap": pytest.approx(0.2), "costly": pytest.approx(0.5)}
    (alone,) = advise(Situation(), grid(cheap={LOW: 0.5}), plain).ranking
    assert (alone.cost, alone.measured) == (0.3, False)


def test_a_cheaper_method_that_is_nearly_as_good() -> None:
    evidence = grid(retrain={LOW: 0.1}, cheap={LOW: 0.59}, relearn={LOW: 0.6})
    for record in evidence.records:
        if record.method == "cheap":
            object.__setattr__(record, "sample_gradients", 10)
            object.__setattr__(record, "seconds", 0.1)
    advice = advise(Situation(), evidence, plain)
    assert advice.cheaper is not None
    assert advice.cheaper.method == "cheap"
    evidence = grid(retrain={LOW: 0.1}, cheap={LOW: 0.57}, relearn={LOW: 0.6})
    assert advise(Situation(), evidence, plain).cheaper is None


def test_a_failed_run_counts_as_nothing() -> None:
    evidence = grid(sure={LOW: 0.6, HIGH: 0.6}, risky={LOW: 1.0, HIGH: None})
    advice = advise(Situation(), evidence, plain)
    assert names(advice) == ["sure", "risky"]
    assert advice.ranking[1].mean == pytest.approx(0.5)


def test_where_every_run_was_skipped_there_are_no_figures() -> None:
    skipped = [make(method=method, status="skipped", uxh=None) for method in ("retrain", "relearn")]
    advice = advise(Situation(), Evidence(source="test", records=skipped), plain)
    assert (advice.choice.method, advice.figures, advice.ranking) == ("relearn", None, ())
    assert advice.excluded["relearn"] == "was not run in every cell that counts"


def test_the_figures_of_a_choice_over_the_budget_are_shown() -> None:
    evidence = grid(retrain={LOW: 0.1}, relearn={LOW: 0.9}, delete={LOW: 0.2})
    advice = advise(Situation(budget=0.1), evidence, plain)
    assert advice.choice.method == "delete"
    assert advice.excluded["delete"] == "is over the budget"
    assert advice.figures is not None
    assert advice.figures.mean == pytest.approx(0.2)


def test_a_choice_that_does_not_work_or_was_not_run() -> None:
    advice = advise(Situation(), grid(retrain={LOW: 0.1}, relearn={LOW: 0.49}), plain)
    assert advice.figures is not None
    assert advice.figures.mean < WORKS
    assert advice.retrain is not None
    assert advice.retrain.mean == 0.1
    absent = advise(Situation(), grid(retrain={LOW: 0.1}, a={LOW: 0.9}), plain)
    assert (absent.choice.method, absent.figures) == ("relearn", None)
    with pytest.raises(InvalidInput, match="get one of them back"):
        advise(Situation(retain=False, forget=False), grid(a={LOW: 0.9}), plain)


def test_seeds_decide_a_tie() -> None:
    ours, theirs = [0.8, 0.7, 0.9], [0.75, 0.72, 0.8]
    records = [
        make(key=f"{method}{seed}", method=method, seed=seed, uxh=uxh)
        for method, values in (("relearn", ours), ("b", theirs))
        for seed, uxh in enumerate(values)
    ]
    advice = advise(Situation(), Evidence(source="test", records=records), plain)
    assert advice.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert advice.p is not None
    assert advice.p >= LEVEL
    assert not any("one seed" in sentence for sentence in advice.thin)
    both = [
        *records,
        *(
            make(key=f"m{record.key}", method=record.method, seed=record.seed, uxh=record.uxh, data="mnist")
            for record in records
        ),
    ]
    two = advise(Situation(), Evidence(source="test", records=both), plain)
    assert two.p is None
    assert two.figures is not None
    assert len(two.figures.cells) == 2
    assert two.thin == ()


def test_thin_evidence_is_said() -> None:
    advice = advise(Situation(), grid(a={LOW: 0.9}), plain)
    assert any("one data set (digits)" in sentence for sentence in advice.thin)
    assert any("one seed" in sentence for sentence in advice.thin)


def test_evidence_without_a_map() -> None:
    records = [make(task="classes", regularity=None, discovery=None)]
    with pytest.raises(InvalidInput, match="no record of a corruption task; run 'expunge map' first"):
        advise(Situation(), Evidence(source="test", records=records), plain)


def test_the_packaged_figures_are_those_of_the_results_page() -> None:
    with RESULTS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    evidence = packaged_evidence()
    assert len(evidence.records) == len(rows)
    for record, row in zip(evidence.records, rows, strict=True):
        assert (record.method, record.status, record.seed) == (row["method"], row["status"], int(row["seed"]))
        assert (record.regularity, record.discovery) == (float(row["regularity"]), float(row["discovery"]))
        # What normalisation statistics only hide does not count as healed.
        for name in ("uxh_recalibrated", "healed_recalibrated", "utility_recalibrated", "sample_gradients"):
            value = getattr(record, name.removesuffix("_recalibrated"))
            assert value == pytest.approx(float(row[name]), abs=1e-4)
    assert "docs/results/digits-methods.csv" in evidence.source
    assert evidence.reservations


def test_what_methods_say_of_themselves() -> None:
    retrain = method_facts("retrain")
    assert retrain is not None
    assert set(retrain.needs) == {"retain", "recipe"}
    assert retrain.retraining_share == 1.0
    ideal = method_facts("rem_ideal")
    assert ideal is not None
    assert ideal.oracle
    assert "Schoepf" in ideal.source
    nothing = method_facts("none")
    assert nothing is not None
    assert nothing.needs == ()
    assert method_facts("no_such_method") is None
    assert method_facts("json:dumps") is None
