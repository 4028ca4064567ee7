"""The terminal, the page and the files say the same numbers."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from report_records import cost_table, map_table
from rich.console import Console

from expunge.registry import METHODS
from expunge.results.frame import measurements
from expunge.results.page import build_page
from expunge.results.summary import summarise
from expunge.results.tables import write_tables
from expunge.store.record import Record

STORED = Path(__file__).with_name("digits_all_tables.txt")
"""What the terminal showed of these figures before there was one table of measurements."""
SWEEP = Path(__file__).parents[2] / "docs" / "results" / "digits-all.csv"
NUMBERS = ("regularity", "discovery", "healed", "utility", "uxh", "seconds")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """The older sweep of every method, without the one that is gone."""
    with SWEEP.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] in METHODS.names()]
    return [
        Record(
            key=f"{number}", data="digits", model="convnet", status=row["status"], method=row["method"],
            oracle=row["method"] == "retrain_corrected", seed=int(row["seed"]),
            sample_gradients=int(row["sample_gradients"]) if row["sample_gradients"] else None,
            **{name: round(float(row[name]), 4) if row[name] else None for name in NUMBERS},
        )
        for number, row in enumerate(rows)
    ]  # fmt: skip


def test_the_terminal_shows_what_it_showed(records: list[Record]) -> None:
    console = Console(file=io.StringIO(), width=110)
    console.print("digits, convnet", ())
    console.print(map_table(records))
    console.print(cost_table(records))
    assert console.file.getvalue() == STORED.read_text(encoding="utf-8")  # type: ignore[attr-defined]


def test_page_and_files_agree_with_the_terminal(records: list[Record], tmp_path: Path) -> None:
    shown = {}
    for line in STORED.read_text(encoding="utf-8").partition("Quality and cost")[2].splitlines():
        if found := re.match(r"(\w+)(?: \(oracle\))? +([\d.]+) +([\d.]+) +([\d.]+) ", line):
            shown[found[1]] = found.groups()[1:]
    methods = summarise(measurements(records)).methods
    assert list(shown) == list(methods.index)

    page = build_page(records, {})
    table = page.partition('aria-label="Methods of this sweep"')[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row" data-value="(\w+)">(.*?)</tr>', table, re.DOTALL)
    assert [name for name, _ in rows] == list(shown)
    for name, row in rows:
        values = [text.split(" ")[0] for text in re.findall("<td[^>]*>([^<]*)", row)]
        # mean, one for each regularity, healed of the known and of the unknown, utility
        assert (values[0], values[6]) == (shown[name][0], shown[name][2])

    write_tables(records, tmp_path)
    with (tmp_path / "cells-digits-convnet.csv").open(encoding="utf-8") as file:
        cells_of: dict[str, list[float]] = {}
        for line in csv.DictReader(file):
            cells_of.setdefault(line["method"], []).append(float(line["uxh"]))
    means = {name: f"{100 * sum(values) / len(values):.1f}" for name, values in cells_of.items()}
    assert means == {name: values[0] for name, values in shown.items()}
    tex = (tmp_path / "map-digits-convnet.tex").read_text(encoding="utf-8")
    last = {
        row.split(" & ")[0].replace("\\_", "_"): row.split(" & ")[-1]
        for row in tex.splitlines()
        if " & " in row
    }
    assert all(values[0] in last[name] for name, values in shown.items())
