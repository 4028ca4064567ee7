from __future__ import annotations

import io
import math
import statistics
from typing import Any

import pytest
from report_records import make
from rich.console import Console

from expunge.results.comparisons import larger_spread, seed_spreads, unlearning_varies
from expunge.results.frame import measurements
from expunge.results.page import build_page
from expunge.results.summary import summarise_forgetting
from expunge.results.sweeps import seed_text, sort_into_sweeps
from expunge.results.terminal import spread_tables
from expunge.statistics import half_width, variance_components
from expunge.store.record import Record

VALUES = {0: [0.50, 0.52, 0.54], 1: [0.60, 0.61, 0.62], 2: [0.40, 0.40, 0.43]}
"""Training seed -> Utility x Healed for each unlearning seed."""


def on_map(method: str = "rem", shift: float = 0.0) -> list[Record]:
    return [
        make(
            key=f"{method}{seed}{number}{place}",
            method=method,
            seed=seed,
            training_seed=seed,
            unlearning_seed=number,
            discovery=place,
            uxh=value + shift + sign * 0.1,
            healed=0.5,
            utility=0.5,
        )
        for seed, row in VALUES.items()
        for number, value in enumerate(row)
        for place, sign in ((0.1, -1), (1.0, 1))
    ]


def forgetting() -> list[Record]:
    """Of npo, whose gap to retrain is 0.1 (seed + 1) + 0.01 unlearning seed."""
    return [
        make(
            key=f"{method}{seed}{number}",
            method=method,
            seed=seed,
            training_seed=seed,
            unlearning_seed=number,
            task="classes",
            regularity=None,
            discovery=None,
            metrics={"retain_accuracy": 0.9 - (gap if method == "npo" else 0.0)},
        )
        for method in ("retrain", "npo")
        for seed in (0, 1)
        for number in (0, 1)
        for gap in (0.1 * (seed + 1) + 0.01 * number,)
    ]


def text_of(tables: list[object], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_seeds_told_apart() -> None:
    records = on_map()
    assert unlearning_varies(measurements(records))
    assert not unlearning_varies(
        measurements([make(seed=0, unlearning_seed=0), make(seed=1, unlearning_seed=1)])
    )
    assert [seed_text(record) for record in records[:4:2]] == [0, "0, unlearning 1"]
    assert seed_text(make(seed=4)) == 4  # an old record


def spreads(records: list[Record]) -> list[Any]:
    return list(seed_spreads(measurements(records)).itertuples())


def test_components_of_the_map() -> None:
    (spread,) = spreads(on_map())
    assert (spread.runs, spread.training_seeds) == (9, 3)
    assert (spread.sd_training, spread.sd_unlearning) == pytest.approx(variance_components(VALUES))
    means = list(map(statistics.fmean, VALUES.values()))
    assert spread.mean == pytest.approx(statistics.fmean(means))
    assert spread.half_width == pytest.approx(half_width(statistics.stdev(means), 3))


def test_a_pair_of_seeds_that_lacks_a_cell_is_left_out() -> None:
    (spread,) = spreads(on_map()[1:])
    assert spread.runs == 8


def test_one_unlearning_seed_each_makes_no_table() -> None:
    records = [record for record in on_map() if record.unlearning_seed == 0]
    assert spreads(records) == []
    assert spread_tables(measurements(records)) == []


def test_forgetting_shows_the_gap_to_the_same_seeds() -> None:
    records = forgetting()
    (spread,) = spreads(records)
    assert (spread.method, spread.measure) == ("npo", "average gap")
    assert spread.sd_unlearning == pytest.approx(0.01 / math.sqrt(2))
    (found,) = summarise_forgetting(measurements(records)).values()
    assert found.loc["npo", ("average_gap", "n")] == 2
    assert found.loc["npo", ("average_gap", "mean")] == pytest.approx(0.155)


@pytest.mark.parametrize(
    ("training", "unlearning", "said"),
    [
        (None, 0.1, "one training seed"),
        (0.1, None, "one unlearning seed for each training"),
        (0.0, 0.0, "neither seed matters"),
        (0.1, 0.0, "unlearning is repeatable"),
        (0.0, 0.1, "unlearning noise explains all of it"),
        (0.1, 0.09, "both seeds matter as much"),
        (0.1, 0.05, "the training seed matters 2.0 times as much as the unlearning seed"),
        (0.05, 0.15, "the unlearning seed matters 3.0 times as much as the training seed"),
    ],
)
def test_in_words(training: float | None, unlearning: float | None, said: str) -> None:
    assert larger_spread(training, unlearning).startswith(said)


def test_table_and_page() -> None:
    records = on_map() + on_map("npo", -0.2)
    text = text_of(list(spread_tables(measurements(records))))
    assert "Spread over the seeds: U x H, mean of the map, %" in text
    assert "sd" in text
    assert text.index("rem") < text.index("npo")
    assert "95 % t-interval over the training" in " ".join(text.split())
    page = build_page(records, {})
    assert "Spread over the seeds" in page
    assert "sd unlearning" in page
    assert "seed matters" in page
    assert "Spread over the seeds" not in build_page([r for r in records if r.unlearning_seed == 0], {})


def test_a_sweep_keeps_every_pair_of_seeds() -> None:
    (sweep,) = sort_into_sweeps(on_map())
    assert len(sweep.records) == 18
    assert sweep.notes == ()
