from __future__ import annotations

import io
import re
from typing import Any

import pytest
from report_records import cost_table, make, map_table
from rich.console import Console, RenderableType

from expunge.errors import InvalidInput
from expunge.store.record import Record


def printed(table: RenderableType, *, width: int = 100, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None
    )
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def line(text: str, start: str) -> str:
    (found,) = [row.rstrip() for row in text.splitlines() if row.startswith(start)]
    return found


def one_line(text: str) -> str:
    return " ".join(text.split())


def full_map(seeds: int) -> list[Record]:
    """Nine methods by nine cells, with the widest values there can be."""
    methods = ["none", "retrain", "finetune", "npo", "rem", "rem_without_removal", "gradient_ascent"]
    return [
        make(method=method, regularity=place, discovery=rate, seed=seed, uxh=seed * 0.3 + 0.6, oracle=oracle)
        for method, oracle in [*((name, False) for name in methods), ("rem_ideal", True), ("ideal", True)]
        for place in (0.0, 0.5, 1.0)
        for rate in (0.1, 0.5, 1.0)
        for seed in range(seeds)
    ]


def test_values_marks_and_mean() -> None:
    records = [
        make(method="none", uxh=0.05),
        make(method="none", discovery=1.0, uxh=0.1),
        make(method="rem", uxh=0.5555),
        make(method="rem", discovery=1.0, uxh=1.0),
        make(method="npo", uxh=0.6),
        make(method="npo", discovery=1.0, status="failed"),
        make(method="ideal", uxh=0.9, oracle=True),
    ]
    text = printed(map_table(records))
    assert line(text, "method").split() == ["method", "10%", "100%", "mean"]
    assert line(text, "none").split() == ["none", "5.0", "10.0", "7.5"]
    assert line(text, "rem").split() == ["rem", "55.5", "100.0•", "77.8•"]
    assert line(text, "npo").split() == ["npo", "60.0•", "failed", "60.0", "1/2"]
    assert line(text, "ideal").split() == ["ideal", "(oracle)", "90.0", "–", "90.0", "1/2"]
    assert "Utility x Healed, %" in text
    assert "• and bold: best of its column, oracles apart. 1/2: number of cells in a mean" in one_line(text)
    assert "digits, resnet9, 1 seed." in text


def test_spread_over_seeds() -> None:
    records = [
        make(seed=0, uxh=0.2),
        make(seed=1, uxh=0.6),
        make(seed=0, discovery=0.5, uxh=0.3),
        make(seed=1, discovery=0.5, status="failed"),
    ]
    text = printed(map_table(records))
    # The deviation of 20 and 60 is 40 / sqrt(2).
    assert line(text, "rem").split() == ["rem", "40±28•", "30•!", "35.0•"]
    assert "2 seeds." in text
    assert "±: standard deviation over the seeds. !: some seeds failed and are left out." in one_line(text)


def test_no_spread_no_word_of_it() -> None:
    text = printed(map_table([make(uxh=0.5)]))
    assert "±" not in text
    assert "failed" not in text


@pytest.mark.parametrize("make_table", [map_table, cost_table])
def test_eighty_columns_break_no_line(make_table: Any) -> None:
    long = ("rem_without_redirection", "retrain_corrected")
    records = [*full_map(2), *(make(method=name, uxh=0.5, oracle=name in long[1:]) for name in long)]
    text = printed(make_table(records), width=80)
    assert max(map(len, text.splitlines())) <= 80
    for name in ("rem_without_redirection", "retrain_corrected (oracle)"):
        assert [row for row in text.splitlines() if row.startswith(f"{name}  ")]
    tables = text.split("ideal (oracle)")[:-1]
    for row in (row for table in tables for row in table.splitlines() if row.startswith("finetune")):
        assert len(row.split()) >= 4


def test_a_map_below_its_width_is_one_table_for_each_regularity() -> None:
    text = printed(map_table(full_map(2)), width=80)
    headings = [row.split() for row in text.splitlines() if row.startswith("method")]
    assert headings == [["method", "10%", "50%", "100%"]] * 2 + [
        ["method", "10%", "50%", "100%", "the", "map"]
    ]
    assert [row.split()[0] for row in text.splitlines() if row.strip() in ("random", "interclass")] == [
        "random",
        "interclass",
    ]
    assert len([row for row in text.splitlines() if row.startswith("rem_ideal (oracle)")]) == 3
    assert text.count("Utility x Healed, %") == 1
    assert text.count("Columns: share") == 1


def test_many_rates_are_cut_to_the_width() -> None:
    rates = [number / 10 for number in range(1, 11)]
    records = [make(method=name, discovery=rate, uxh=0.5) for name in ("none", "rem") for rate in rates]
    text = printed(map_table(records), width=50)
    assert max(map(len, text.splitlines())) <= 50
    shown = [word for row in text.splitlines() if row.startswith("method") for word in row.split()]
    assert [word for word in shown if word.endswith("%")] == [f"{10 * number}%" for number in range(1, 11)]
    assert text.count("50.0") == 2 * 11


@pytest.mark.parametrize("seeds", [1, 2])
def test_nine_cells_fit_a_hundred_columns(seeds: int) -> None:
    text = printed(map_table(full_map(seeds)))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for name in ("rem_without_removal", "gradient_ascent", "ideal (oracle)"):
        assert len(line(text, f"{name} ").removeprefix(name).split()) == 10
    heading = next(row for row in text.splitlines() if "interclass" in row)
    assert heading.split() == ["random", "interclass", "poison"]
    # Each regularity stands above its own rates.
    rates = line(text, "method")
    second = [found.start() for found in re.finditer("10%", rates)][1]
    third = [found.start() for found in re.finditer("10%", rates)][2]
    assert second <= heading.index("interclass") < third <= heading.index("poison")


def test_values_stand_under_their_rate() -> None:
    rows = printed(map_table(full_map(1))).splitlines()
    rates = next(row for row in rows if row.startswith("method"))
    values = next(row for row in rows if row.startswith("finetune"))
    ends = [found.end() - 1 for found in re.finditer("%", rates)]
    assert len(ends) == 9
    assert all(values[end].isdigit() and not values[end + 1].isdigit() for end in ends)


def test_a_narrow_terminal_loses_no_value() -> None:
    text = printed(map_table(full_map(1)), width=60)
    assert text.count("60.0") == 90


def test_best_is_green_and_oracles_are_dim() -> None:
    text = printed(map_table([make(uxh=0.5), make(method="ideal", uxh=0.75, oracle=True)]), colour=True)
    assert re.search(r"\x1b\[1;32m *50\.0•", text)
    assert re.search(r"\x1b\[2mideal \(oracle\)", text)
    assert not re.search(r"75\.0•", text)


def test_names_are_data_not_markup() -> None:
    name = "[red]x[/red]\x1b[2J"
    for table in (
        map_table([make(method=name, uxh=0.5)]),
        cost_table([make(method=name, data="[b]", uxh=0.5)]),
    ):
        text = printed(table, colour=True)
        assert "[red]x[/red]�[2J" in text
        assert "\x1b[2J" not in text
    assert "[b], resnet9" in printed(cost_table([make(data="[b]")]))


def test_everything_failed() -> None:
    text = printed(map_table([make(status="failed", error="diverged")]))
    assert line(text, "rem").split() == ["rem", "failed", "–"]


def test_skipped_is_missing() -> None:
    assert line(printed(map_table([make(status="skipped")])), "rem").split() == ["rem", "–", "–"]


def test_costs() -> None:
    measured = {"uxh": 0.4, "healed": 0.5, "utility": 0.8, "seconds": 2.0, "sample_gradients": 1_000_000}
    records = [
        make(**measured, peak_memory=10**8),
        make(
            **measured | {"seconds": 4.0, "sample_gradients": 2_000_000},
            regularity=1.0,
            asr=0.125,
            peak_memory=10**9,
        ),
        make(method="none", utility=0.8, seconds=0.0, sample_gradients=0),
        make(method="ideal", oracle=True, sample_gradients=999_600),
    ]
    text = printed(cost_table(records))
    assert line(text, "rem").split() == ["rem", "40.0", "50.0", "80.0", "12.5", "3.0", "1.5", "M", "1000"]
    assert line(text, "none").split() == ["none", "–", "–", "80.0", "–", "0.0", "0", "–"]
    assert line(text, "ideal").split() == ["ideal", "(oracle)", "–", "–", "–", "–", "–", "1", "M", "–"]
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("make_table", [map_table, cost_table])
def test_no_records(make_table: Any) -> None:
    with pytest.raises(InvalidInput, match="there are no records to report, at least one was expected"):
        make_table([])
