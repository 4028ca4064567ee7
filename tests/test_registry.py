from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from expunge import registry
from expunge.errors import InvalidInput, UnknownName
from expunge.registry import METHODS, TABLES, Registry

Install = Callable[..., None]


def table() -> Registry:
    return Registry("method", {"square": "math:sqrt", "cube": "math:cbrt"}, "expunge.nothing")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that other packages declare entry points, given as name=target."""

    def install(**points: str) -> None:
        monkeypatch.setattr(
            registry,
            "entry_points",
            lambda group: [EntryPoint(name, target, group) for name, target in points.items()],
        )

    return install


def test_names_keep_their_order() -> None:
    assert table().names() == ["square", "cube"]


@pytest.mark.parametrize("kind", TABLES)
def test_every_name_loads_and_has_a_summary(kind: str) -> None:
    for name in TABLES[kind].names():
        found = TABLES[kind].get(name)
        assert TABLES[kind].summary(name) == found.__doc__.strip().partition("\n")[0]


def test_method_names_are_those_of_the_classes() -> None:
    assert [METHODS.get(name).name for name in METHODS.names()] == METHODS.names()


def test_near_miss() -> None:
    with pytest.raises(
        UnknownName, match=r"unknown method 'gradient_ascend'; did you mean 'gradient_ascent'\?"
    ):
        METHODS.get("gradient_ascend")


def test_nothing_near() -> None:
    with pytest.raises(UnknownName, match=r"unknown method 'xyz' \(known: square, cube\)"):
        table().get("xyz")


def test_path() -> None:
    import math

    assert table().get("math:floor") is math.floor


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "math:nonsense",
            r"method path 'math:nonsense' cannot be loaded: .*nonsense.*; expected 'module:Object'",
        ),
        (
            "no_such_module:x",
            "method path 'no_such_module:x' cannot be loaded: No module named 'no_such_module'",
        ),
        ("math:", "method path 'math:' cannot be loaded"),
        (":Object", "method path ':Object' cannot be loaded"),
        (".relative:Object", "method path '.relative:Object' cannot be loaded"),
    ],
)
def test_path_that_leads_nowhere(path: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        table().get(path)


def test_other_packages_add_names(installed: Install) -> None:
    import math

    installed(zeta="math:exp", alpha="math:log")
    extended = table()
    assert extended.names() == ["square", "cube", "alpha", "zeta"]
    assert extended.get("zeta") is math.exp


def test_name_taken_twice(installed: Install) -> None:
    installed(cube="math:exp")
    expected = (
        "method name 'cube' is taken twice: by math:cbrt and by math:exp; rename one of the entry points in "
        "group 'expunge.nothing'"
    )
    with pytest.raises(InvalidInput, match=expected):
        table().names()


def test_one_object_under_one_name_twice_is_no_conflict(installed: Install) -> None:
    installed(cube="math:cbrt")
    assert table().names() == ["square", "cube"]


def test_summaries_need_no_torch() -> None:
    code = (
        "import sys; from expunge.registry import TABLES\n"
        "texts = [table.summary(name) for table in TABLES.values() for name in table.names()]\n"
        "print(all(texts), len(texts), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count = sum(len(table.names()) for table in TABLES.values())
    assert done.stdout.split() == ["True", str(count), "False"]


def test_summary_of_what_has_no_source() -> None:
    assert table().summary("square") == ""
    assert Registry("method", {"gone": "no_such_module:X"}, "expunge.nothing").summary("gone") == ""
    assert Registry("method", {"gone": "expunge.errors:Gone"}, "expunge.nothing").summary("gone") == ""
