from __future__ import annotations

import csv
import io

import pytest

from expunge.store.spreadsheet import as_text, csv_text, from_text


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-x", "@SUM(A1)", "-", "\tx"])
def test_formulas_are_text_and_come_back(cell: str) -> None:
    assert as_text(cell) == f"'{cell}"
    assert from_text(f"'{cell}") == cell
    assert csv_text([["a", cell]]).startswith(f"a,'{cell[:1]}") or "\t" in cell


@pytest.mark.parametrize("cell", [-1.5, 3, "-1.5", "+1e-3", "cat", "", "'quoted'", True, "a=b"])
def test_other_cells_stay(cell: object) -> None:
    assert as_text(cell) == cell
    assert from_text(str(cell)) == str(cell)
    assert list(csv.reader(io.StringIO(csv_text([[cell, "b"]])))) == [[str(cell), "b"]]
