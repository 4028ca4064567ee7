from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import expunge
from expunge.cli import app
from expunge.errors import UnknownName
from expunge.registry import METHODS, METRICS, TABLES

SOURCE = str(Path(expunge.__file__).parents[1])


def listing(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["list", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_every_name_with_its_summary() -> None:
    lines = [line.split(maxsplit=1) for line in listing().splitlines() if line.strip()]
    expected: list[list[str]] = []
    for table, registry in TABLES.items():
        expected.append([table])
        expected.extend([name, registry.summary(name)] for name in registry.names())
    assert [[part.rstrip() for part in line] for line in lines] == expected
    assert all(len(line) == 2 and line[1] for line in expected if line[0] not in TABLES)


def test_summaries_are_the_first_lines_of_the_docstrings() -> None:
    for registry in TABLES.values():
        for name in registry.names():
            documented = registry.get(name).__doc__
            assert documented is not None, name
            assert registry.summary(name) == documented.strip().partition("\n")[0]


def test_one_table() -> None:
    shown = listing("metrics")
    names = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert names == {"metrics", *METRICS.names()}


def test_methods_are_listed_with_what_they_need_and_cost() -> None:
    shown = " ".join(listing("methods").split())
    assert "name year needs touches cost" in shown
    assert "retrain 2025 retain, recipe all parameters," in shown
    assert "none nothing nothing none" in shown
    assert "lotus 2025 forget, retain," in shown
    assert "mnemonic_code* 2024 classes, codes" in shown


def test_the_markdown_table_has_every_method() -> None:
    lines = CliRunner().invoke(app, ["list", "--markdown"]).output.splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == METHODS.names()


def test_an_unknown_table() -> None:
    result = CliRunner().invoke(app, ["list", "method"])
    assert isinstance(result.exception, UnknownName)
    assert str(result.exception) == "unknown table 'method' (known: methods, tasks, models, data, metrics)"


def test_nothing_large_is_loaded() -> None:
    script = """
import sys
from expunge.cli import main
sys.argv = ["expunge", "list"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({"torch", "numpy", "sklearn", "altair", "sqlalchemy"} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.splitlines()[-1] == "loaded:"
    assert "rem_ideal" in answer.stdout


@pytest.mark.parametrize(("arguments", "said"), [(["--version"], expunge.__version__), (["--help"], "Usage")])
def test_run_as_a_module(arguments: list[str], said: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "expunge", *arguments],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}, check=True,
    )  # fmt: skip
    assert said in answer.stdout
