from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
from report_records import make

from expunge.errors import StoreError
from expunge.results.charts import write_figures
from expunge.results.frame import COLUMNS, measurements
from expunge.results.summary import summarise, summarise_forgetting
from expunge.results.tables import forgetting_tabular, latex, map_tabular, write_tables
from expunge.store.record import Record


def tabular(records: list[Record]) -> str:
    return map_tabular(summarise(measurements(records)), "title")


def test_special_letters() -> None:
    assert latex("a_b & 50% {x} \\ ~^#$ <>") == (
        r"a\_b \& 50\% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#\$ \textless{}\textgreater{}"
    )
    assert "\x1b" not in latex("\x1b[2J")


def test_best_is_bold_and_second_underlined() -> None:
    records = [
        make(method="none", uxh=0.0),
        make(method="a", uxh=0.801),
        make(method="b", uxh=0.8009),  # prints like a
        make(method="c_c", uxh=0.5),
        make(method="ideal", oracle=True, uxh=0.9),
        make(method="scrub", status="failed"),
    ]
    lines = tabular(records).splitlines()
    row = {line.split(" & ")[0]: line for line in lines if " & " in line}
    assert r"\textbf{80.1}" in row["a"]
    assert row["b"].split(" & ")[1] == r"\textbf{80.1}"
    assert row[r"c\_c"].split(" & ")[1] == r"\underline{50.0}"
    assert row["ideal"].split(" & ")[1] == "90.0"
    assert row["scrub"].split(" & ")[1:] == ["failed", r"-- \\"]
    assert lines.index(row["ideal"]) == lines.index(r"\midrule", lines.index(r"\midrule") + 1) + 1
    assert lines[-1] == r"\end{tabular}"


def test_seeds_give_intervals_and_every_row_has_every_column() -> None:
    records = [
        make(method=method, regularity=regularity, discovery=discovery, seed=seed, uxh=0.1 * seed)
        for method in ("a", "b")
        for regularity in (0.0, 1.0)
        for discovery in (0.1, 1.0)
        for seed in (1, 2, 3)
    ]
    text = tabular(records)
    assert r"20.0\,$\pm$\,24.8" in text  # sd 0.1, t = 4.303, n = 3
    assert r"\begin{tabular}{lrrrrr}" in text
    assert all(line.count("&") == 5 for line in text.splitlines() if line.startswith(("a ", "b ", "method")))
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}" in text


def test_many_cells_make_a_table_for_each_regularity() -> None:
    records = [
        make(regularity=regularity, discovery=step / 10, uxh=0.5)
        for regularity in (0.0, 0.5)
        for step in range(1, 11)
    ]
    text = tabular(records)
    assert text.count(r"\begin{tabular}{" + "l" + 10 * "r" + "}") == 2
    assert "mean" not in text


def test_forgetting() -> None:
    records = [
        make(
            key=f"{method}{seed}", method=method, seed=seed, task="random", task_settings={"share": 0.1},
            regularity=None, discovery=None, metrics={"forget_accuracy": forget},
        )
        for method, forget in (("retrain", 0.9), ("natmu", 0.8), ("salun", 0.5))
        for seed in (0, 1)
    ]  # fmt: skip
    text = forgetting_tabular(summarise_forgetting(measurements(records)), "digits")
    assert r"natmu & 80.0\,$\pm$\,0.0 & \textbf{10.0\,$\pm$\,0.0} \\" in text
    assert r"\underline{40.0\,$\pm$\,0.0}" in text
    assert r"retrain & 90.0\,$\pm$\,0.0 & -- \\" in text


def test_files_hold_the_numbers(tmp_path: Path) -> None:
    records = [make(seed=seed, uxh=uxh, seconds=2.0) for seed, uxh in enumerate((0.2, 0.4))]
    records.append(make(method="scrub", status="failed"))
    written = write_tables(records, tmp_path)
    assert {"map-digits-resnet9.tex", "cells-digits-resnet9.csv"} <= {path.name for path in written}
    with (tmp_path / "cells-digits-resnet9.csv").open(encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["rem"]["uxh"]) == pytest.approx(0.3)
    assert float(rows["rem"]["uxh_half_width"]) == pytest.approx(
        12.7062 * 0.1, rel=1e-4
    )  # t(0.975, 1) sd / sqrt 2
    assert (rows["scrub"]["uxh"], rows["scrub"]["failed"]) == ("", "1")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet_equals_the_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    write_tables([make(uxh=0.25, seconds=2.0)], tmp_path)
    (row,) = parquet.read_table(tmp_path / "cells-digits-resnet9.parquet").to_pylist()
    assert (row["method"], row["uxh"], row["uxh_sd"], row["oracle"]) == ("rem", 0.25, None, False)


def test_without_pyarrow_there_is_no_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert {path.suffix for path in write_tables([make(uxh=0.5)], tmp_path)} == {".tex", ".csv"}


def test_the_long_table_is_written_too(tmp_path: Path) -> None:
    write_tables([make(uxh=0.25, metrics={"js": {"value": 0.5, "floor": 0.1}})], tmp_path)
    with (tmp_path / "measurements-digits-resnet9.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["measure"], row["value"], row["floor"]) for row in rows] == [
        ("uxh", "0.25", ""),
        ("js", "0.5", "0.1"),
    ]


def test_figures_of_every_sweep(tmp_path: Path) -> None:
    records = [
        make(key="a", method="none", uxh=0.1, seconds=0.0, model_key="m"),
        make(key="b", uxh=0.5, seconds=1.0, model_key="m"),
        make(key="c", data="mnist", uxh=0.5),
    ]
    written = write_figures(records, tmp_path, {"m": 0.5})
    assert sorted(path.name for path in written) == sorted(
        f"{name}.{form}"
        for name in ("front-digits-resnet9", "map-digits-resnet9", "map-mnist-resnet9")
        for form in ("svg", "pdf")
    )
    text = (tmp_path / "map-digits-resnet9.svg").read_text(encoding="utf-8")
    assert "50°" in text
    assert "had not learned the corruption" in text
    assert "°" not in (tmp_path / "map-mnist-resnet9.svg").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot be written: .*; choose a path"):
        write_tables([make(uxh=0.5)], tmp_path / "file")
