"""The README and the table of methods name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from expunge.results.method_facts import markdown_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_method_table_is_the_one_the_code_gives() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert markdown_table() in page, "replace the table by the output of 'expunge list --markdown'"


def test_a_first_screen_and_no_more() -> None:
    assert README.count("\n") < 120


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    ("said", "measured"),
    [
        ("**1.6 %**", ("1.6",)),
        ("87.3 to 87.1", ("87.29", "87.14")),
        ("88.6 to 87.9", ("88.60", "87.89")),
        ("45 to 47 %", ("44.7", "47.3")),
        ("**57 to 58 %**", ("57.1", "58.0")),
        ("**81 %**", ("81.3",)),
        ("fine-tuned again: 70 %", ("70.0",)),
        ("**1.4 %**", ("1.4",)),
    ],
)
def test_the_figures_are_those_of_the_results(said: str, measured: tuple[str, ...]) -> None:
    table = README.partition("| damaged model |")[2].partition("\n\n")[0]
    results = (ROOT / "docs" / "results" / "relearn.md").read_text(encoding="utf-8")
    assert said in table
    for figure, exact in zip(re.findall(r"\d+(?:\.\d+)?", said), measured, strict=True):
        assert exact in results
        assert abs(float(figure) - float(exact)) <= (0.05 if "." in figure else 0.5) + 1e-9


def test_the_commands_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE)
    assert {"setup", "map", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command
