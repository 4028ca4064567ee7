from __future__ import annotations

import csv
from pathlib import Path

import pytest
from report_records import make, store_of
from scipy import stats

from expunge.errors import InvalidInput
from expunge.report.export_tables import write_tables
from expunge.report.page import build_page
from expunge.report.paired import Comparison, against_by_sweep, comparisons
from expunge.report.sweeps import sort_into_sweeps
from expunge.statistics import holm
from expunge.store.record import Record

UXH = {
    "top": [[0.90, 0.80], [0.92, 0.78], [0.88, 0.83]],
    "near": [[0.95, 0.70], [0.80, 0.88], [0.90, 0.80]],
    "low": [[0.10, 0.10], [0.10, 0.12], [0.12, 0.10]],
}
"""Method -> seed -> value at regularity 0 and at regularity 1."""


def on_map(discoveries: tuple[float, ...] = (0.1,), **changed: object) -> list[Record]:
    return [
        make(
            key=f"{method}{seed}{regularity}{discovery}",
            method=method,
            seed=seed,
            regularity=regularity,
            discovery=discovery,
            uxh=uxh,
            **changed,
        )
        for method, seeds in UXH.items()
        for seed, row in enumerate(seeds)
        for regularity, uxh in zip((0.0, 1.0), row, strict=True)
        for discovery in discoveries
    ]


def forgetting(method: str, values: list[float], task: str = "classes") -> list[Record]:
    return [
        make(
            key=f"{method}{task}{seed}",
            method=method,
            seed=seed,
            task=task,
            regularity=None,
            discovery=None,
            metrics={"retain_accuracy": value},
        )
        for seed, value in enumerate(values)
    ]


def only(found: list[Comparison]) -> Comparison:
    assert len(found) == 1
    return found[0]


def test_pairs_are_task_and_training_seed() -> None:
    found = only(comparisons(on_map()))
    assert (found.measure, found.against, found.best) == ("U x H", "top", True)
    assert [rival.method for rival in found.rivals] == ["near", "low"]
    flat = {method: [value for row in rows for value in row] for method, rows in UXH.items()}
    for rival in found.rivals:
        expected = stats.ttest_rel(flat[rival.method], flat["top"])
        test = rival.difference
        assert test is not None
        assert (test.difference.n, test.unpaired) == (6, 0)
        assert test.p == pytest.approx(float(expected.pvalue))
        low, high = expected.confidence_interval(0.95)
        assert (test.difference.low, test.difference.high) == (pytest.approx(low), pytest.approx(high))
    p_values = [rival.difference.p for rival in found.rivals if rival.difference]
    assert [rival.adjusted for rival in found.rivals] == pytest.approx(holm(p_values))
    assert [rival.tied for rival in found.rivals] == [True, False]


def test_rates_of_one_first_model_are_one_pair() -> None:
    once, thrice = only(comparisons(on_map())), only(comparisons(on_map((0.1, 0.5, 1.0))))
    for few, many in zip(once.rivals, thrice.rivals, strict=True):
        assert few.difference is not None
        assert many.difference is not None
        assert many.difference.difference.n == few.difference.difference.n == 6
        assert many.difference.p == pytest.approx(few.difference.p)


def test_unlearning_seeds_are_averaged() -> None:
    records = on_map(unlearning_seed=0) + [
        make(**{**vars(record), "key": record.key + "again", "unlearning_seed": 1}) for record in on_map()
    ]
    found, plain = only(comparisons(records)), only(comparisons(on_map()))
    assert [rival.adjusted for rival in found.rivals] == pytest.approx(
        [rival.adjusted for rival in plain.rivals]
    )


def test_against_a_chosen_method() -> None:
    found = only(comparisons(on_map(), "low"))
    assert (found.against, found.best) == ("low", False)
    assert [rival.method for rival in found.rivals] == ["top", "near"]
    top = found.rivals[0].difference
    assert top is not None
    assert top.difference.mean > 0.7


def test_oracles_stay_out_unless_chosen() -> None:
    ideal = [make(key=f"i{seed}", method="ideal", oracle=True, seed=seed, uxh=1.0) for seed in range(3)]
    assert only(comparisons(on_map() + ideal)).against == "top"
    chosen = only(comparisons(on_map() + ideal, "ideal"))
    test = chosen.rivals[0].difference
    assert test is not None
    assert (test.difference.n, test.unpaired) == (3, 3)


def test_a_method_that_lacks_cells_is_not_chosen() -> None:
    lucky = make(key="lucky", method="lucky", uxh=1.0)
    found = only(comparisons([*on_map(), lucky]))
    assert found.against == "top"
    assert next(rival for rival in found.rivals if rival.method == "lucky").difference is None


def test_forgetting_compares_gaps_and_less_is_better() -> None:
    records = (
        forgetting("retrain", [0.9, 0.9, 0.9])
        + forgetting("near", [0.89, 0.88, 0.88])
        + forgetting("far", [0.70, 0.74, 0.69])
    )
    found = only(comparisons(records))
    assert (found.measure, found.against) == ("average gap", "near")
    (rival,) = found.rivals
    assert rival.difference is not None
    assert rival.difference.p == pytest.approx(
        float(stats.ttest_rel([0.20, 0.16, 0.21], [0.01, 0.02, 0.02]).pvalue)
    )
    assert not rival.tied


def test_one_method_or_one_pair() -> None:
    assert comparisons([make(uxh=0.5)]) == []
    (rival,) = only(comparisons([make(uxh=0.5), make(method="npo", uxh=0.4)])).rivals
    assert (rival.difference, rival.adjusted, rival.tied) == (None, None, False)


def test_an_unknown_method() -> None:
    sweeps = sort_into_sweeps(on_map())
    with pytest.raises(
        InvalidInput, match=r"nothing can be compared with 'topp'.*top.*methods: low, near, top"
    ):
        against_by_sweep(sweeps, "topp")


def test_page_and_tables(tmp_path: Path) -> None:
    records = store_of(["none", "rem", "npo"])
    page = build_page(records, {})
    assert "Paired comparison" in page
    assert "the best by its mean" in page
    assert "p, Holm" in page
    assert "U x H against npo</h4>" in build_page(records, {}, against="npo")
    with pytest.raises(InvalidInput, match="nothing can be compared with 'age'"):
        build_page(records, {}, against="age")
    write_tables(records, tmp_path, "npo")
    with (tmp_path / "paired-digits-resnet9.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["against"] for row in rows} == {"npo"}
    assert [row["pairs"] for row in rows] == ["9", "9"]
