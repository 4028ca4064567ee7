"""Where a method fails, as its page says it, from tables that are known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

import method_results  # noqa: E402

HEADER = "method,regularity,discovery,seed,healed,utility,uxh,asr,uxh_recalibrated,asr_recalibrated,status"
PAGE = """
| method | corruption, share known | U × H | recalibrated | ASR | recalibrated |
|---|---|---:|---:|---:|---:|
| gradient ascent | poison, 10 % | 86.9 | 9.9 | 5 | 84 |
| NPO | two classes exchanged, all | 77.5 | 92.3 | - | - |
"""


def table(*lines: str) -> list[method_results.Measured]:
    return [method_results.parse("known.csv", "\n".join([HEADER, *lines]))]


UNTOUCHED = ("none,0,0.1,7,0,0.98,0,,,,done", "none,1,0.1,7,0,0.98,0,1,,,done")


def test_means_are_over_seeds_and_leave_out_what_is_not_done() -> None:
    (measured,) = table(
        "npo,0,0.1,7,0.4,0.9,0.36,,,,done",
        "npo,0,0.1,8,0.6,1.0,0.60,,,,done",
        "npo,0,0.1,9,,,,,,,failed",
    )
    (cell,) = measured.cells["npo"]
    assert (cell.seeds, cell.uxh, cell.utility, cell.asr) == (2, pytest.approx(48), pytest.approx(95), None)
    assert cell.place == "random labels, 10 % known"


def test_the_sentences_of_a_method_that_hides_a_trigger() -> None:
    (measured,) = table(
        *UNTOUCHED,
        "npo,0,0.1,7,0.5,0.80,0.40,,0.41,,done",
        "npo,1,0.1,7,0.9,0.96,0.86,0.05,0.10,0.84,done",
    )
    assert method_results.failures(measured.cells["npo"], measured.cells["none"]) == [
        "Its lowest cell is random labels, 10 % known: Utility x Healed 40 %.",
        "It costs 5 points of utility or more in 1 of 2 cells; most in random labels, 10 % known: 80 % is left of "
        "98 %.",
        "A part of the trigger is hidden by normalisation statistics, not forgotten: with those of the retain set it "
        "works on 84 % in place of 5 % with 10 % known. See [recalibration](../recalibration.md).",
    ]


def test_the_sentences_of_a_method_that_leaves_a_trigger() -> None:
    (measured,) = table(
        *UNTOUCHED, "retrain,0,0.1,7,0.12,0.98,0.12,,,,done", "retrain,1,0.1,7,0,0.98,0,1,,,done"
    )
    assert method_results.failures(measured.cells["retrain"], measured.cells["none"]) == [
        "Its lowest cell is poison, 10 % known: Utility x Healed 0 %.",
        "It leaves the model as damaged as it was (within a point) in poison (10 % known).",
        "The trigger still works on test images: 100 % with 10 % known.",
    ]


def test_statistics_that_harm_are_told_too() -> None:
    (measured,) = table("npo,0.5,1,7,0.8,0.97,0.775,,0.923,,done")
    assert method_results.failures(measured.cells["npo"], ())[1:] == [
        "Its own statistics harm it in 1 of 1 cells; most in two classes exchanged, all known: recalibrated, Utility x "
        "Healed is 92 % in place of 78 %."
    ]


def test_a_method_without_rows_says_so() -> None:
    said = method_results.section(
        "unsir", table(*UNTOUCHED), ["It forgets whole classes and nothing smaller."]
    )
    assert said.splitlines() == [
        "## Where it fails",
        "",
        "- It forgets whole classes and nothing smaller.",
        "- It has not been measured on the digits map, so there is no map of it here.",
    ]


def test_figures_of_the_page_on_recalibration_stand_in_where_the_file_has_none() -> None:
    (poison,) = method_results.hidden_elsewhere("gradient_ascent", PAGE)
    assert "Utility x Healed is 9.9 % in place of 86.9 %" in poison
    assert "the trigger works on 84 % in place of 5 %" in poison
    (swap,) = method_results.hidden_elsewhere("npo", PAGE)
    assert "two classes exchanged, all known" in swap
    assert "trigger" not in swap
    assert method_results.hidden_elsewhere("rem", PAGE) == []


def test_the_first_file_with_rows_is_shown_and_an_older_day_is_named() -> None:
    newer = method_results.parse("newer.csv", f"{HEADER}\nrem,0,0.1,7,0.9,1,0.9,,,,done")
    older = method_results.parse("older.csv", f"{HEADER}\ndelete,0,0.1,7,0.5,1,0.5,,,,done", "2026-11-22")
    assert "docs/results/newer.csv" in method_results.section("rem", [newer, older])
    said = method_results.section("delete", [newer, older])
    assert "docs/results/older.csv`, of 2026-11-22." in said


def test_the_map_has_poison_on_top_and_an_empty_tile_where_nothing_was_run() -> None:
    (measured,) = table("rem,0,0.1,7,0,1,0,,,,done", "rem,1,1,7,1,1,1,,,,done")
    lines = method_results.map_table(measured.cells["rem"]).splitlines()
    top, bottom = (line for line in lines if 'scope="row"' in line)
    assert top.startswith('<tr><th scope="row">poison</th><td class="empty">×</td>')
    assert 'style="background:#fde725;color:black">100<' in top
    assert 'style="background:#440154;color:white">0<' in bottom


def test_a_hidden_trigger_has_the_colour_of_what_is_left() -> None:
    (measured,) = table("delete,1,0.1,7,0.8,1,0.82,0.06,0,1,done")
    tile = method_results.map_table(measured.cells["delete"])
    assert 'style="background:#440154;color:white">82<br><small>0 recalibrated</small>' in tile
    assert "in the colour of the lower" in method_results.section("delete", [measured])


def test_colours_lie_between_their_neighbours() -> None:
    assert method_results.colour(50) == "#21918c"
    assert method_results.colour(-3) == method_results.colour(0)
    assert method_results.colour(103) == method_results.colour(100)
    low, middle, high = (int(method_results.colour(value)[1:3], 16) for value in (90, 95, 100))
    assert low < middle < high


def test_a_map_without_a_low_cell_is_called_too_easy() -> None:
    (measured,) = table("rem,0,0.1,7,1,1,0.97,,,,done", "rem,1,0.1,7,1,1,0.95,0,,,done")
    assert method_results.failures(measured.cells["rem"], ()) == [
        "Its lowest cell is poison, 10 % known: Utility x Healed 95 %.",
        "So this map is too easy to show where it fails.",
    ]


def test_figures_from_other_pages_stand_there() -> None:
    page = (DOCS / "results" / "relearn.md").read_text(encoding="utf-8")
    for figure in ("**32.1**", "about 45 to 52"):
        assert figure in page
    assert "32.1" in method_results.ELSEWHERE["relearn"]


def test_the_tables_of_the_repository_are_read() -> None:
    measured = method_results.read(DOCS / "results")
    assert measured
    assert all(len(cells) == 9 for each in measured for cells in each.cells.values())
