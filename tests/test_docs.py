"""What the documentation tells a reader to type is there: commands, options, Python, settings, links."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from expunge.cli import app
from expunge.sweep.grid import Grid

ROOT = Path(__file__).parents[1]
NOTES = ROOT / "docs" / "results" / "notes"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if NOTES not in path.parents),
]
NOT_RUN = {
    "README.md": "a sketch over the reader's own model; docs/index.md has it in full",
    "docs/find.md": "lines that stand in the reader's own training",
}
"""Pages whose Python is not run, and why."""


def blocks(path: Path, languages: tuple[str, ...]) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    for indent, language, body in re.findall(
        r"^( *)```(\w*)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL
    ):
        if language in languages:
            yield re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)


def commands(path: Path) -> Iterator[str]:
    """Return the lines of shell blocks that call expunge, with continued lines joined and comments gone."""
    for block in blocks(path, ("sh", "bash", "")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "expunge" in words and words[0] not in ("pip", "#"):
                yield shlex.join(words[words.index("expunge") + 1 :])


CALLS = [(path, line) for path in PAGES for line in commands(path)]


def test_there_is_something_to_test() -> None:
    assert len(CALLS) > 30


@pytest.mark.parametrize(
    ("path", "line"), CALLS, ids=lambda value: value.name if isinstance(value, Path) else value
)
def test_a_command_and_its_options_are_there(path: Path, line: str) -> None:
    group: Any = typer.main.get_command(app)
    name, *words = shlex.split(line)
    command = group.commands[name]
    command.make_context(name, words)  # raises for an unknown option or a missing one


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_in_the_text_are_there(path: Path) -> None:
    group: Any = typer.main.get_command(app)
    known = {flag for command in group.commands.values() for each in command.params for flag in each.opts}
    known |= {
        flag for command in group.commands.values() for each in command.params for flag in each.secondary_opts
    }
    if path.parent.name == "results":
        pytest.skip("results tell the commands of their day, benchmarks among them")
    text = path.read_text(encoding="utf-8")
    told = set(re.findall(r"`(--[a-z][a-z-]+)", text))
    assert told - known - {"--help", "--version"} == set()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (path, code)
        for path in PAGES
        if str(path.relative_to(ROOT)) not in NOT_RUN
        for code in blocks(path, ("python",))
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_python_runs(path: Path, code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [(path, text) for path in PAGES for text in blocks(path, ("toml",))],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_settings_are_those_of_a_grid(path: Path, text: str) -> None:
    content = tomllib.loads(text)
    if "project" in content:
        assert set(content["project"]["entry-points"]) == {"expunge.methods"}
        return
    file = {"settings", "run", "task", "tasks", "recipe", "recipes", "methods", "data"}
    assert set(content) <= file | {entry.name for entry in fields(Grid)}
    if "run" in content:  # a whole file, as `expunge bench` reads it
        assert Grid.parse(text, path.name).tasks


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("#"):
            continue
        name = link.partition("#")[0]
        generated = re.fullmatch(r"(?:\.\./)?(?:commands|metrics/\w+|methods/\w+)\.md", name)
        assert generated or (path.parent / name).exists(), f"{path.name}: {link}"


def test_every_page_is_reached() -> None:
    """No page of the site stands beside the navigation but the notes, which the results lead to."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.name != "README.md"]
    pages = [page for page in pages if not page.startswith("results/")]  # docs/gen_pages.py adds them all
    assert [page for page in pages if page not in navigation] == []
    index = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTES.glob("*.md") if f"notes/{path.name}" not in index] == []
    assert "results/notes/" not in navigation.partition("\nnav:")[2]


@pytest.mark.parametrize(
    "path",
    [path for path in (ROOT / "docs" / "results").rglob("*.md") if path.name != "index.md"],
    ids=lambda path: path.stem,
)
def test_a_page_of_results_begins_with_three_lines(path: Path) -> None:
    """Question, answer, how sure: before any figure, picture or command."""
    text = path.read_text(encoding="utf-8")
    start = re.search(r"\*\*Question[.:]\*\*.*?\*\*Answer[.:]\*\*.*?\*\*How sure[.:]\*\*", text, re.DOTALL)
    assert start
    before = text[: start.start()]
    assert before.startswith("# ")
    assert len(before.splitlines()) <= 3
