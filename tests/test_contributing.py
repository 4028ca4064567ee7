"""CONTRIBUTING.md, carried out: each kind is added in a package of its own, and turns up everywhere."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
ENTRY_POINTS = """\
[expunge.methods]
my_method = my_method:MyMethod
[expunge.metrics]
my_metric = my_metric:MyMetric
[expunge.datasets]
my_data = my_data:load_my_data
[expunge.tasks]
my_task = my_task:MyTask
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and the metadata that an installed package with these entry points has."""
    root = tmp_path_factory.mktemp("package")
    for text in re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        (root / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    about = root / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return root


def run(package: Path, *words: str) -> str:
    paths = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=package, env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_four_are_listed_and_described(package: Path) -> None:
    listed = run(package, "expunge", "list")
    assert all(name in listed for name in ("my_method", "my_metric", "my_data", "my_task"))
    assert "how many" in run(package, "expunge", "describe", "my_task")


def test_a_sweep_of_all_four_reaches_table_and_report(package: Path) -> None:
    shown = run(
        package, "expunge", "bench", "my_grid.toml", "--out", "results", "--device", "cpu", "--workers", "1"
    )
    assert "my_method" in shown
    assert "my_metric" in shown
    with (package / "results" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["task"]) for row in rows} == {
        (method, "my_task") for method in ("none", "retrain", "my_method")
    }
    assert all(0 <= float(row["my_metric"]) <= 1 for row in rows)
    run(package, "expunge", "report", "results", "--out", "report.html")
    page = (package / "report.html").read_text()
    assert "my_task count=4" in page
    assert "my_metric" in page


def test_the_contract_of_the_method(package: Path) -> None:
    assert "passed" in run(
        package, "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "test_my_method.py"
    )


def test_one_file_by_its_path(package: Path) -> None:
    grid = (package / "my_grid.toml").read_text().replace('"my_method"', '"my_method:MyMethod"')
    for name, path in {"my_task": "my_task:MyTask", "my_data": "my_data:load_my_data"}.items():
        grid = grid.replace(f'"{name}"', f'"{path}"')
    for about in package.glob("*.dist-info/entry_points.txt"):
        about.unlink()
    (package / "paths.toml").write_text(grid.replace('"my_metric"', '"my_metric:MyMetric"'))
    shown = run(package, "expunge", "bench", "paths.toml", "--out", "by_path", "--device", "cpu", "--dry-run")
    assert "6 cells" in shown
