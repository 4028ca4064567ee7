"""The README and the table of methods name what exists."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_the_figures_are_those_of_the_results() -> None:
    table = README.partition("| damaged model |")[2].partition("\n\n")[0]
    results = (ROOT / "docs" / "results" / "relearn.md").read_text(encoding="utf-8")
    for figure in ("76.0", "3.8", "67.8", "81.3"):
        assert figure in table
        assert figure in results


def test_the_commands_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE)
    assert {"setup", "map", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command
