from __future__ import annotations

import statistics

import pytest
from report_records import make
from scipy import stats

from expunge.report.comparison import half_width, paired_p, standings
from expunge.report.summary import Spread, summarise
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


def test_half_width_is_that_of_the_t_interval() -> None:
    values = [0.2, 0.5, 0.9]
    low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
    spread = Spread(mean=statistics.fmean(values), sd=statistics.stdev(values), n=3)
    assert half_width(spread) == pytest.approx((high - low) / 2)
    assert half_width(Spread(mean=0.5, sd=None, n=1)) is None


def test_paired_test_is_scipys_on_the_seeds_means() -> None:
    ours = {
        seed: dict(zip(PLACES, row, strict=True))
        for seed, row in enumerate([(0.1, 0.3), (0.2, 0.6), (0.4, 0.1)])
    }
    theirs = {
        seed: dict(zip(PLACES, row, strict=True))
        for seed, row in enumerate([(0.2, 0.5), (0.3, 0.5), (0.7, 0.4)])
    }
    expected = stats.ttest_rel([0.2, 0.4, 0.25], [0.35, 0.4, 0.55]).pvalue
    assert paired_p(ours, theirs) == pytest.approx(expected)


def test_only_cells_and_seeds_of_both_enter() -> None:
    ours = {0: {PLACES[0]: 0.1, PLACES[1]: 0.9}, 1: {PLACES[0]: 0.2}, 2: {PLACES[0]: 0.9}}
    theirs = {0: {PLACES[0]: 0.2}, 1: {PLACES[0]: 0.5}, 3: {PLACES[0]: 0.1}}
    assert paired_p(ours, theirs) == pytest.approx(stats.ttest_rel([0.1, 0.2], [0.2, 0.5]).pvalue)
    assert paired_p({0: {PLACES[0]: 0.1}}, {0: {PLACES[0]: 0.2}}) is None
    assert paired_p(ours, {7: {PLACES[0]: 0.2}}) is None


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_differences(shift: float, expected: float) -> None:
    ours = {seed: {PLACES[0]: 0.5 + shift} for seed in range(3)}
    assert paired_p(ours, {seed: {PLACES[0]: 0.5} for seed in range(3)}) == expected


def test_best_second_and_tie() -> None:
    records = sweep(
        top=[[0.90, 0.80], [0.92, 0.78], [0.88, 0.82]],
        near=[[0.95, 0.70], [0.80, 0.88], [0.90, 0.80]],
        low=[[0.1, 0.1], [0.1, 0.12], [0.12, 0.1]],
    )
    records += [
        make(method="ideal", oracle=True, uxh=1.0, regularity=row, discovery=0.1) for row, _ in PLACES
    ]
    found = standings(summarise(records), records)
    assert (found["top"].mark, found["top"].tied) == ("best", False)
    assert (found["near"].mark, found["near"].tied) == ("second", True)
    assert (found["low"].mark, found["low"].tied) == ("", False)
    assert found["low"].p is not None
    assert found["low"].p < 0.01
    assert found["ideal"].mark == ""
    interval = found["low"].interval
    assert interval is not None
    assert interval.mean == pytest.approx(statistics.fmean([0.1, 0.11, 0.11]))
    assert interval.half_width == pytest.approx(float(stats.t.ppf(0.975, 2) * stats.sem([0.1, 0.11, 0.11])))


def test_a_method_that_lacks_cells_is_not_marked() -> None:
    records = sweep(whole=[[0.5, 0.4]], part=[[0.9, 0.9]])
    records = [record for record in records if (record.method, record.regularity) != ("part", 0.5)]
    found = standings(summarise(records), records)
    assert found["part"].mark == ""
    assert found["whole"].mark == "best"
    only = standings(summarise(records), records, [PLACES[0]])
    assert (only["part"].mark, only["whole"].mark) == ("best", "second")
    assert only["whole"].p is None


def test_a_method_without_values() -> None:
    records = [make(uxh=0.5), make(method="scrub", status="failed")]
    found = standings(summarise(records), records)
    assert found["scrub"].interval is None


def test_seeds_that_lack_cells_stay_out_of_the_interval() -> None:
    records = sweep(rem=[[0.2, 0.4], [0.4, 0.6], [0.9, 0.9]])[:-1]
    interval = standings(summarise(records), records)["rem"].interval
    assert interval is not None
    assert interval.n == 2
    assert interval.half_width == pytest.approx(float(stats.t.ppf(0.975, 1) * stats.sem([0.3, 0.5])))
