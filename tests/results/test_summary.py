from __future__ import annotations

import math
import random
import re
import statistics
from functools import partial

import pytest
import report_records

from expunge.errors import InvalidInput
from expunge.results.frame import measurements
from expunge.results.summary import Summary
from expunge.results.summary import summarise as summarise_table
from expunge.store.record import Record


def summarise(records: list[Record]) -> Summary:
    return summarise_table(measurements(records))


make = partial(report_records.make, regularity=0.5)


def test_cell_over_seeds() -> None:
    summary = summarise(
        [
            make(seed=0, uxh=0.2, healed=0.25, utility=0.8, seconds=1.0, sample_gradients=10, peak_memory=5),
            make(seed=1, uxh=0.6, healed=0.75, utility=0.8, seconds=3.0, sample_gradients=30),
            make(seed=2, status="failed", uxh=1.0, error="diverged"),
            make(seed=3, status="skipped"),
        ]
    )
    cell = summary.cell["rem", 0.5, 0.1]
    assert (cell["seeds"], cell["failed"]) == (2, 1)
    assert (cell["uxh"], cell["healed"]) == (pytest.approx(0.4), pytest.approx(0.5))
    assert cell["uxh_sd"] == pytest.approx(0.4 / 2**0.5)  # |a - b| / sqrt(2) for two values
    # t(0.975, 1 degree of freedom) = 12.7062
    assert cell["uxh_half_width"] == pytest.approx(12.7062 * 0.4 / 2, rel=1e-5)
    assert cell["utility_sd"] == pytest.approx(0.0)
    assert (cell["seconds"], cell["sample_gradients"]) == (2.0, 20.0)
    assert cell["peak_memory"] == 5.0
    assert all(math.isnan(cell[name]) for name in ("peak_memory_sd", "peak_memory_half_width", "asr"))
    assert summary.seeds == (0, 1, 2, 3)


def test_cells_weigh_the_same_however_many_seeds() -> None:
    records = [make(seed=seed, uxh=0.0, seconds=1.0) for seed in range(3)]
    records.append(make(regularity=1.0, seed=0, uxh=0.5, seconds=10.0, asr=0.25, peak_memory=7))
    records.append(make(regularity=1.0, discovery=0.5, status="failed", seconds=99.0))
    method = summarise(records).method["rem"]
    assert method["uxh"] == pytest.approx(0.25)
    assert (method["cells"], method["failed"]) == (2, 1)
    assert method["seconds"] == pytest.approx(5.5)
    assert (method["asr"], method["peak_memory"]) == (0.25, 7.0)


def test_unlearning_seeds_of_one_training_count_by_their_mean() -> None:
    values = {0: [0.50, 0.52, 0.54], 1: [0.60, 0.61, 0.62], 2: [0.40, 0.40, 0.43]}
    records = [
        make(seed=seed, unlearning_seed=number, uxh=uxh)
        for seed, row in values.items()
        for number, uxh in enumerate(row)
    ]
    cell = summarise(records).cell["rem", 0.5, 0.1]
    means = list(map(statistics.fmean, values.values()))
    assert (cell["seeds"], cell["uxh"]) == (3, pytest.approx(statistics.fmean(means)))
    assert cell["uxh_sd"] == pytest.approx(statistics.stdev(means))


def test_against_a_slow_loop() -> None:
    draw = random.Random(3)
    records = [
        make(method=method, regularity=place, discovery=rate, seed=seed, uxh=draw.random())
        for method in "abc"
        for place in (0.0, 0.5, 1.0)
        for rate in (0.1, 0.5)
        for seed in range(4)
        if draw.random() < 0.9
    ]
    draw.shuffle(records)
    summary = summarise(records)
    for method, row in summary.method.items():
        means = []
        for place, rate in summary.places:
            values = []
            for record in records:
                if (record.method, record.regularity, record.discovery) == (method, place, rate):
                    assert record.uxh is not None
                    values.append(record.uxh)
            cell = summary.cell[method, place, rate]
            assert cell["uxh"] == pytest.approx(sum(values) / len(values))
            assert cell["uxh_sd"] == pytest.approx(statistics.stdev(values))
            means.append(sum(values) / len(values))
        assert row["uxh"] == pytest.approx(sum(means) / len(means))
    assert summary.places == ((0.0, 0.1), (0.0, 0.5), (0.5, 0.1), (0.5, 0.5), (1.0, 0.1), (1.0, 0.5))


def test_order_of_the_methods() -> None:
    records = [
        make(method="low", uxh=0.1),
        make(method="failed", status="failed"),
        make(method="ideal_low", uxh=0.8, oracle=True),
        make(method="none", uxh=0.0),
        make(method="ideal_high", uxh=0.9, oracle=True),
        make(method="high", uxh=0.7),
        make(method="also_high", uxh=0.7),
        make(method="zero", uxh=0.0),
    ]
    summary = summarise(records)
    assert list(summary.method) == [
        "none",
        "also_high",
        "high",
        "low",
        "zero",
        "failed",
        "ideal_high",
        "ideal_low",
    ]
    assert [row["oracle"] for row in summary.method.values()] == [False] * 6 + [True] * 2


def test_best_leaves_oracles_out_and_marks_ties() -> None:
    summary = summarise(
        [
            make(method="a", uxh=0.1 + 0.2),
            make(method="b", uxh=0.3),
            make(method="c", uxh=0.3 - 1e-6),
            make(method="ideal", uxh=0.9, oracle=True),
            make(method="c", regularity=1.0, uxh=0.2),
            make(method="ideal", regularity=0.0, uxh=0.2, oracle=True),
            make(method="a", regularity=1.0, status="failed"),
        ]
    )
    assert winners(summary) == {("a", 0.5), ("b", 0.5), ("c", 1.0)}
    # a and b have the higher mean, but over one cell only.
    assert [name for name, row in summary.method.items() if row["best"]] == ["c"]
    assert [summary.cell[name, 0.5, 0.1]["rank"] for name in "abc"] == [1, 2, 3]


def winners(summary: Summary) -> set[tuple[str, float]]:
    return {(method, place) for (method, place, _), cell in summary.cell.items() if cell["best"]}


def test_a_mean_of_zero_can_be_best() -> None:
    assert winners(summarise([make(method="a", uxh=0.0)])) == {("a", 0.5)}


def test_labels() -> None:
    records = [
        make(regularity=place, discovery=rate) for place in (0.0, 0.25) for rate in (1 / 3, 1.0, 0.005)
    ]
    summary = summarise(records)
    assert summary.regularity_labels == {0.0: "random", 0.25: "0.25"}
    assert list(summary.discovery_labels.values()) == ["0.5%", "33.3%", "100%"]


def test_values_that_round_alike_keep_their_own_label() -> None:
    summary = summarise([make(discovery=0.5), make(discovery=0.50001)])
    assert len(set(summary.discovery_labels.values())) == 2
    summary = summarise([make(regularity=0.3), make(regularity=0.3 + 1e-9)])
    assert len(set(summary.regularity_labels.values())) == 2


def test_no_records() -> None:
    with pytest.raises(
        InvalidInput, match=r"no records to report, at least one was expected; run a sweep first"
    ):
        summarise([])


@pytest.mark.parametrize(
    ("field", "kind", "names"), [("data", "data sets", "digits, mnist"), ("model", "models", "resnet9, vit")]
)
def test_several_data_sets_or_models(field: str, kind: str, names: str) -> None:
    with pytest.raises(
        InvalidInput,
        match=re.escape(f"come from several {kind} ({names}), but one report is about one; select"),
    ):
        summarise([make(), make(seed=1, **{field: names.rpartition(" ")[2]})])


def test_two_records_of_one_run() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"two records of method 'rem' at regularity 0\.5, discovery 0\.1, seed 0, one was expected; select",
    ):
        summarise([make(settings={"rounds": 1}), make(key="l", settings={"rounds": 2})])


def test_a_record_without_a_place() -> None:
    with pytest.raises(InvalidInput, match=r"of a task 'random share=0\.1', which has no place on the map"):
        summarise([make(task="random", task_settings={"share": 0.1}, regularity=None, discovery=None)])


def test_a_measure_of_ones_own_is_summarised_too() -> None:
    cell = summarise(
        [make(seed=seed, uxh=0.5, metrics={"mine": value}) for seed, value in enumerate((1.0, 3.0))]
    ).cell
    assert (cell["rem", 0.5, 0.1]["mine"], cell["rem", 0.5, 0.1]["mine_sd"]) == (2.0, pytest.approx(2**0.5))
