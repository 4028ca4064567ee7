from __future__ import annotations

import math
import statistics
from typing import Any

import pandas as pd
import pytest
from report_records import make
from scipy import stats

from expunge.results.frame import measurements
from expunge.results.summary import paired, summarise
from expunge.results.summary import standings as standings_of_table
from expunge.store.record import Record

PLACES = [(0.0, 0.1), (0.5, 0.1)]


def sweep(**values: list[list[float]]) -> list[Record]:
    """values[method][seed][place]"""
    return [
        make(method=method, seed=seed, regularity=place[0], discovery=place[1], uxh=uxh)
        for method, by_seed in values.items()
        for seed, row in enumerate(by_seed)
        for place, uxh in zip(PLACES, row, strict=True)
    ]


def standings(records: list[Record]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = standings_of_table(measurements(records)).to_dict("index")
    return found


def wide(**values: dict[int, dict[float, float]]) -> pd.DataFrame:
    """values[method][seed][place]"""
    rows = [
        (method, seed, place, value)
        for method, seeds in values.items()
        for seed, places in seeds.items()
        for place, value in places.items()
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "place", "value"])
    return table.set_index(["seed", "place", "method"])["value"].unstack("method")


def test_paired_test_is_scipys_on_the_seeds_means() -> None:
    ours = {seed: {0.0: a, 1.0: b} for seed, (a, b) in enumerate([(0.1, 0.3), (0.2, 0.6), (0.4, 0.1)])}
    theirs = {seed: {0.0: a, 1.0: b} for seed, (a, b) in enumerate([(0.2, 0.5), (0.3, 0.5), (0.7, 0.4)])}
    expected = stats.ttest_rel([0.2, 0.4, 0.25], [0.35, 0.4, 0.55])
    found = paired(wide(ours=ours, theirs=theirs), "theirs", ["seed"]).loc["ours"]
    low, high = expected.confidence_interval(0.95)
    assert (found["p"], found["pairs"]) == (pytest.approx(expected.pvalue), 3)
    assert found["difference"] == pytest.approx((low + high) / 2)
    assert found["half_width"] == pytest.approx((high - low) / 2)


def test_only_cells_and_seeds_of_both_enter() -> None:
    ours = {0: {0.0: 0.1, 1.0: 0.9}, 1: {0.0: 0.2}, 2: {0.0: 0.9}}
    theirs = {0: {0.0: 0.2}, 1: {0.0: 0.5}, 3: {0.0: 0.1}}
    found = paired(wide(ours=ours, theirs=theirs), "theirs", ["seed"]).loc["ours"]
    assert found["p"] == pytest.approx(stats.ttest_rel([0.1, 0.2], [0.2, 0.5]).pvalue)
    assert (found["pairs"], found["not_paired"]) == (2, 2)
    one = paired(wide(ours={0: {0.0: 0.1}}, theirs={0: {0.0: 0.2}}), "theirs", ["seed"]).loc["ours"]
    assert math.isnan(one["p"])
    none = paired(wide(ours=ours, theirs={7: {0.0: 0.2}}), "theirs", ["seed"]).loc["ours"]
    assert (none["pairs"], none["not_paired"]) == (0, 4)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_differences(shift: float, expected: float) -> None:
    ours = {seed: {0.0: 0.5 + shift} for seed in range(3)}
    values = wide(ours=ours, theirs={seed: {0.0: 0.5} for seed in range(3)})
    assert paired(values, "theirs", ["seed"]).loc["ours", "p"] == expected


def test_best_second_and_tie() -> None:
    records = sweep(
        top=[[0.90, 0.80], [0.92, 0.78], [0.88, 0.82]],
        near=[[0.95, 0.70], [0.80, 0.88], [0.90, 0.80]],
        low=[[0.1, 0.1], [0.1, 0.12], [0.12, 0.1]],
    )
    records += [
        make(method="ideal", oracle=True, uxh=1.0, regularity=row, discovery=0.1) for row, _ in PLACES
    ]
    found = standings(records)
    assert (found["top"]["mark"], found["top"]["tied"]) == ("best", False)
    assert (found["near"]["mark"], found["near"]["tied"]) == ("second", True)
    assert (found["low"]["mark"], found["low"]["tied"]) == ("", False)
    assert found["low"]["p"] < 0.01
    assert found["ideal"]["mark"] == ""
    assert found["low"]["mean"] == pytest.approx(statistics.fmean([0.1, 0.11, 0.11]))
    assert found["low"]["half_width"] == pytest.approx(
        float(stats.t.ppf(0.975, 2) * stats.sem([0.1, 0.11, 0.11]))
    )


def test_a_method_that_lacks_cells_is_not_marked() -> None:
    records = sweep(whole=[[0.5, 0.4]], part=[[0.9, 0.9]])
    records = [record for record in records if (record.method, record.regularity) != ("part", 0.5)]
    found = standings(records)
    assert found["part"]["mark"] == ""
    assert found["whole"]["mark"] == "best"
    only = standings([record for record in records if record.regularity == 0.0])
    assert (only["part"]["mark"], only["whole"]["mark"]) == ("best", "second")
    assert math.isnan(only["whole"]["p"])


def test_a_method_without_values() -> None:
    records = [make(uxh=0.5), make(method="scrub", status="failed")]
    assert "scrub" not in standings(records)
    assert math.isnan(summarise(measurements(records)).method["scrub"]["mean"])


def test_seeds_that_lack_cells_stay_out_of_the_interval() -> None:
    records = sweep(rem=[[0.2, 0.4], [0.4, 0.6], [0.9, 0.9]])[:-1]
    found = standings(records)["rem"]
    assert found["n"] == 2
    assert found["half_width"] == pytest.approx(float(stats.t.ppf(0.975, 1) * stats.sem([0.3, 0.5])))
