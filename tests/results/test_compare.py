from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from report_records import make, store_of
from scipy import stats

from expunge.errors import InvalidInput
from expunge.results.comparisons import compare
from expunge.results.frame import measurements
from expunge.results.page import build_page
from expunge.results.tables import write_tables
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


def comparisons(records: list[Record], against: str | None = None) -> dict[str, dict[str, Any]]:
    """Rival -> what the comparison says, best first."""
    found: dict[str, dict[str, Any]] = (
        compare(measurements(records), against).set_index("method").to_dict("index")
    )
    return found


def test_pairs_are_task_and_training_seed() -> None:
    found = comparisons(on_map())
    assert list(found) == ["near", "low"]
    flat = {method: [value for row in rows for value in row] for method, rows in UXH.items()}
    for method, row in found.items():
        assert (row["measure"], row["against"], row["chosen_by_mean"]) == ("U x H", "top", True)
        expected = stats.ttest_rel(flat[method], flat["top"])
        assert (row["pairs"], row["not_paired"]) == (6, 0)
        assert row["p"] == pytest.approx(float(expected.pvalue))
        low, high = expected.confidence_interval(0.95)
        assert row["difference"] - row["half_width"] == pytest.approx(low)
        assert row["difference"] + row["half_width"] == pytest.approx(high)
    assert [row["p_holm"] for row in found.values()] == pytest.approx(
        holm([row["p"] for row in found.values()])
    )
    assert [row["tied"] for row in found.values()] == [True, False]


def test_rates_of_one_first_model_are_one_pair() -> None:
    once, thrice = comparisons(on_map()), comparisons(on_map((0.1, 0.5, 1.0)))
    for method in ("near", "low"):
        assert once[method]["pairs"] == thrice[method]["pairs"] == 6
        assert thrice[method]["p"] == pytest.approx(once[method]["p"])


def test_unlearning_seeds_are_averaged() -> None:
    records = on_map(unlearning_seed=0) + [
        make(**{**vars(record), "key": record.key + "again", "unlearning_seed": 1}) for record in on_map()
    ]
    found, plain = comparisons(records), comparisons(on_map())
    assert [found[name]["p_holm"] for name in plain] == pytest.approx(
        [row["p_holm"] for row in plain.values()]
    )


def test_against_a_chosen_method() -> None:
    found = comparisons(on_map(), "low")
    assert list(found) == ["top", "near"]
    assert (found["top"]["against"], found["top"]["chosen_by_mean"]) == ("low", False)
    assert found["top"]["difference"] > 0.7


def test_oracles_stay_out_unless_chosen() -> None:
    ideal = [make(key=f"i{seed}", method="ideal", oracle=True, seed=seed, uxh=1.0) for seed in range(3)]
    assert list(comparisons(on_map() + ideal)) == ["near", "low"]
    chosen = comparisons(on_map() + ideal, "ideal")["top"]
    assert (chosen["pairs"], chosen["not_paired"]) == (3, 3)


def test_a_method_that_lacks_cells_is_not_chosen() -> None:
    found = comparisons([*on_map(), make(key="lucky", method="lucky", uxh=1.0)])
    assert found["lucky"]["against"] == "top"
    assert math.isnan(found["lucky"]["p"])


def test_forgetting_compares_gaps_and_less_is_better() -> None:
    records = (
        forgetting("retrain", [0.9, 0.9, 0.9])
        + forgetting("near", [0.89, 0.88, 0.88])
        + forgetting("far", [0.70, 0.74, 0.69])
    )
    found = comparisons(records)
    assert list(found) == ["far"]
    assert (found["far"]["measure"], found["far"]["against"]) == ("average gap", "near")
    expected = stats.ttest_rel([0.20, 0.16, 0.21], [0.01, 0.02, 0.02])
    assert found["far"]["p"] == pytest.approx(float(expected.pvalue))
    assert not found["far"]["tied"]


def test_one_method_or_one_pair() -> None:
    assert comparisons([make(uxh=0.5)]) == {}
    row = comparisons([make(uxh=0.5), make(method="npo", uxh=0.4)])["npo"]
    assert (row["pairs"], row["tied"]) == (1, False)
    assert math.isnan(row["difference"])
    assert math.isnan(row["p_holm"])


def test_an_unknown_method() -> None:
    with pytest.raises(
        InvalidInput, match=r"nothing can be compared with 'topp'.*top.*methods: low, near, top"
    ):
        build_page(on_map(), {}, against="topp")


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
