from __future__ import annotations

import io
import math
import statistics

import pytest
from report_records import make
from rich.console import Console

from expunge.report.forgetting import summarise_forgetting
from expunge.report.page import build_page
from expunge.report.repeat import Commands, grid_text
from expunge.report.seed_spread import SeedSpread, seed_spreads, seed_text, spread_tables, unlearning_varies
from expunge.report.summary import summarise
from expunge.report.sweeps import sort_into_sweeps
from expunge.statistics import Components, Interval, variance_components
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
    assert unlearning_varies(records)
    assert not unlearning_varies([make(seed=0, unlearning_seed=0), make(seed=1, unlearning_seed=1)])
    assert [seed_text(record) for record in records[:4:2]] == [0, "0, unlearning 1"]
    assert seed_text(make(seed=4)) == 4  # an old record


def test_the_mean_and_its_interval_are_over_training_seeds() -> None:
    summary = summarise(on_map())
    cell = summary.cells["rem", 0.0, 1.0].uxh
    assert cell is not None
    means = [statistics.fmean(row) + 0.1 for row in VALUES.values()]
    assert (cell.n, cell.mean) == (3, pytest.approx(statistics.fmean(means)))
    assert cell.sd == pytest.approx(statistics.stdev(means))
    assert summary.cells["rem", 0.0, 1.0].seeds == 3


def test_components_of_the_map() -> None:
    (spread,) = seed_spreads(on_map())
    assert (spread.components.n, spread.components.n_training) == (9, 3)
    expected = variance_components(VALUES)
    assert spread.components.training == pytest.approx(expected.training)
    assert spread.components.unlearning == pytest.approx(expected.unlearning)
    assert spread.components.mean.half_width == pytest.approx(expected.mean.half_width)


def test_a_pair_of_seeds_that_lacks_a_cell_is_left_out() -> None:
    (spread,) = seed_spreads(on_map()[1:])
    assert spread.components.n == 8


def test_one_unlearning_seed_each_makes_no_table() -> None:
    records = [record for record in on_map() if record.unlearning_seed == 0]
    assert seed_spreads(records) == []
    assert spread_tables(records) == []


def test_forgetting_is_told_by_the_gap_to_the_same_seeds() -> None:
    records = forgetting()
    (spread,) = seed_spreads(records)
    assert (spread.method, spread.measure) == ("npo", "average gap")
    assert spread.components.unlearning == pytest.approx(0.01 / math.sqrt(2))
    npo = next(row for row in summarise_forgetting(records) if row.method == "npo")
    assert npo.values["average_gap"].n == 2
    assert npo.values["average_gap"].mean == pytest.approx(0.155)


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
    found = Components(Interval(0.5, None, 1), training, unlearning, 2, 4)
    assert SeedSpread(method="rem", task="", measure="m", components=found).sentence.startswith(said)


def test_table_and_page() -> None:
    records = on_map() + on_map("npo", -0.2)
    text = text_of(list(spread_tables(records)))
    assert "Spread over the seeds: U x H, mean of the map, %" in text
    assert "sd" in text
    assert text.index("rem") < text.index("npo")
    assert "95 % t-interval over the training" in text
    page = build_page(records, {})
    assert "Spread over the seeds" in page
    assert "sd unlearning" in page
    assert "seed matters" in page
    assert "Spread over the seeds" not in build_page([r for r in records if r.unlearning_seed == 0], {})


def test_a_sweep_keeps_every_pair_of_seeds() -> None:
    (sweep,) = sort_into_sweeps(on_map())
    assert len(sweep.records) == 18
    assert sweep.notes == ()


def test_how_to_repeat_it() -> None:
    records = on_map()
    assert Commands({"rem": "rem"}).command(records) is None
    grid = grid_text(records, {"rem": "rem"})
    assert grid is not None
    assert "seeds = [0, 1, 2]\nunlearning_seeds = [0, 1, 2]\n" in grid
    plain = grid_text(
        [record for record in forgetting() if record.unlearning_seed == record.seed],
        {"npo": "npo", "retrain": "retrain"},
    )
    assert plain is not None
    assert "unlearning_seeds" not in plain
