from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.cli.describe import reflowed
from expunge.errors import UnknownName
from expunge.registry import METHODS, METRICS, TABLES
from expunge.settings import documented, meanings

NAMES = [(registry, name) for registry in TABLES.values() for name in registry.names()]


def words(text: str) -> str:
    return " ".join(text.split())


def description(name: str) -> str:
    result = CliRunner().invoke(app, ["describe", name], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("registry", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_name_is_described(registry: Any, name: str) -> None:
    text = description(name)
    assert words(text).startswith(f"{name} {registry.kind} ")
    target = registry.get(name)
    own = inspect.getdoc(target)
    assert own is not None
    # word for word, but for marks of markup: brackets in a formula must not be taken for some
    shown = words(text.replace("`", ""))
    for told in (documented(target), *(part for part in own.split("\n\n") if not part.startswith("Args:"))):
        assert words(re.sub(r":\w+:`~?|`", "", told)) in shown
    if registry not in (METHODS, METRICS):
        return
    if dataclasses.is_dataclass(target):
        assert meanings(target).keys() >= {field.name for field in dataclasses.fields(target)}
    if registry is METRICS:
        assert words(f"Source {target.source}" if target.source else "") in words(text)
        return
    assert words(f"Needs {target.needs}") in words(text)
    assert words(f"Touches {target.touches}") in words(text)
    shown = words(text.partition("Settings")[2])
    for field in dataclasses.fields(target):
        searched = target.search_space().get(field.name, "")
        assert words(f"{field.name} {field.default!r} {searched}") in shown
    if target.reference is None:
        assert "Source " not in text.partition("Settings")[2]
    else:
        reference = target.reference
        line = f"Source {reference.authors}: {reference.title} ({reference.year}), {reference.where}"
        assert words(text).endswith(words(line))


def test_a_setting_is_told_by_the_class_it_comes_from() -> None:
    text = words(description("natmu"))
    assert "lr: learning rate before the first step." in text  # of Relabelling
    assert 'momentum: of "sgd".' in text  # of GradientMethod
    assert "recalibrate: estimate the normalisation statistics" in text
    assert text.index("recalibrate: ") < text.index("lr: ") < text.index("delta: ") < text.index("Raises: ")


def test_formula_and_defaults_of_rem() -> None:
    text = words(description("rem"))
    assert "-(2 / beta) log sigmoid(beta z)" in text
    assert "1[i in D_f]" in text
    assert "open_share 0.2" in text
    assert "Needs forget, retain" in text
    assert "(2025), arXiv 2505.17730" in text


@pytest.mark.parametrize(
    ("name", "near"),
    [("rme", "rem"), ("resnet", "resnet9"), ("digit", "digits"), ("attack_succes", "attack_success")],
)
def test_near_misses(name: str, near: str) -> None:
    result = CliRunner().invoke(app, ["describe", name])
    assert isinstance(result.exception, UnknownName)
    assert str(result.exception).startswith(f"unknown name {name!r}; did you mean {near!r}? (known: none, ")


def test_a_name_like_no_other_lists_them_all() -> None:
    result = CliRunner().invoke(app, ["describe", "zzzz"])
    assert isinstance(result.exception, UnknownName)
    message = str(result.exception)
    assert message.startswith("unknown name 'zzzz' (known: ")
    for _, name in NAMES:
        assert name in message


def test_paragraphs_are_broken_anew_and_formulas_and_lists_are_not() -> None:
    told = reflowed(
        "\n".join(
            (
                "A long line of the docstring that was broken for want of room, at the hundred columns of the",
                "source, and goes on here.",
                "L = sum_i ce_i",
                "  + beta * R",
                "",
                "1. First, a step that is told with so many words that they did not fit into a line of the source",
                "   file.",
                "2. Second, see :func:`~expunge.kin` and ``lr``.",
                "",
                "Args:",
                "    one: a setting whose description is long enough to have been broken where the line had no room",
                "        left.",
                "    two: another, the description of which happens to fit into one line of the source, but not here",
                "    three: short.",
            )
        ),
        60,
    )
    assert told.splitlines() == [
        "A long line of the docstring that was broken for want of",
        "room, at the hundred columns of the source, and goes on",
        "here.",
        "L = sum_i ce_i",
        "  + beta * R",
        "",
        "1. First, a step that is told with so many words that they",
        "   did not fit into a line of the source file.",
        "2. Second, see expunge.kin and `lr`.",
        "",
        "Args:",
        "    one: a setting whose description is long enough to have",
        "        been broken where the line had no room left.",
        "    two: another, the description of which happens to fit",
        "        into one line of the source, but not here",
        "    three: short.",
    ]
