from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from expunge.cli.report import report_command
from expunge.errors import StoreError
from expunge.store.record import Record
from expunge.store.store import Store

app = typer.Typer()
app.command()(report_command)
KEY = "a" * 32


@pytest.fixture
def store(tmp_path: Path) -> Path:
    values: dict[str, Any] = {
        "status": "done", "data": "digits", "model": "resnet9", "seed": 0, "regularity": 0.0, "discovery": 0.1,
        "n_corrupted": 10, "model_key": KEY, "seconds": 1.0,
    }  # fmt: skip
    with Store(tmp_path / "store") as made:
        made.database.add(Record(key="1", method="none", uxh=0.0, **values))
        made.database.add(Record(key="2", method="rem", uxh=0.5, **values))
        made.weights.save(KEY, {"w": torch.zeros(1)}, {"corruption_learned": "0.5"})
    return tmp_path / "store"


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("form", ["folder", "file", "url"])
def test_a_store_becomes_a_page(store: Path, tmp_path: Path, form: str) -> None:
    given = {"folder": store, "file": store / "store.sqlite", "url": f"sqlite:///{store / 'store.sqlite'}"}[
        form
    ]
    out = tmp_path / "deep" / "report.html"
    told = run(given, "--out", out, "--title", "My <sweep>")
    assert "2 records" in told
    page = out.read_text(encoding="utf-8")
    assert "<title>My &lt;sweep&gt;</title>" in page
    # The share the original model has learned stands in its weight file.
    assert ("had learned only 50 %" in page) == (form != "url")


def test_figures_and_tables(store: Path, tmp_path: Path) -> None:
    folders = ["--figures", tmp_path / "figures", "--tables", tmp_path / "tables"]
    run(store, "--out", tmp_path / "r.html", *folders)
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg", ".pdf"}
    assert {".tex", ".csv"} <= {path.suffix for path in (tmp_path / "tables").iterdir()}


def test_the_way_to_parquet_is_told(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = run(store, "--out", tmp_path / "r.html", "--tables", tmp_path / "tables")
    assert "pip install pyarrow" in told


def test_no_store_and_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"there is no store .*missing.*expected a folder with store\.sqlite"
    ):
        run(tmp_path / "missing")
    with pytest.raises(StoreError, match="there is no store"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot be written: .*; choose a path"):
        run(store, "--out", tmp_path / "file" / "report.html")
