from __future__ import annotations

import sys
from pathlib import Path

import pytest

from expunge.errors import InvalidInput
from expunge.inputs.specification import Specification, call_factory
from expunge.optional import load_extra


def test_settings_are_toml_or_text() -> None:
    found = Specification.parse("expunge:vit?width=32&capacity=0.5&split=true&norm=layer")
    assert found.target == "expunge:vit"
    assert found.settings == {"width": 32, "capacity": 0.5, "split": True, "norm": "layer"}
    assert Specification.parse("net.py:Net").settings == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "names nothing"), ("?a=1", "names nothing"), ("x?a", "'a' is no setting"), ("x?a=", "no setting")],
)
def test_bad_specifications(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Specification.parse(text)
    with pytest.raises(InvalidInput, match="given twice"):
        Specification.parse("x?a=1&a=2")


def test_a_factory_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_net.py").write_text("value = 5")
    (tmp_path / "net.py").write_text(
        "from dataclasses import dataclass\nimport neighbour_of_net\n\n"
        "@dataclass\nclass Made:\n    width: int = neighbour_of_net.value\n"
    )
    paths = list(sys.path)
    assert call_factory(f"{tmp_path}/net.py:Made", {}, "a thing").width == 5
    assert call_factory(f"{tmp_path}/net.py:Made", {"width": 2}, "a thing").width == 2
    assert sys.path == paths
    assert call_factory("fractions:Fraction", {"numerator": 3}, "a number") == 3


def test_bad_factories(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("value = 3\ndef make(width):\n    raise RuntimeError('no such width')\n")
    with pytest.raises(InvalidInput, match=r"make\(width=2\) in .*net.py raised RuntimeError: no such width"):
        call_factory(f"{file}:make", {"width": 2}, "a model")
    with pytest.raises(InvalidInput, match=r"raised TypeError.*missing 1 required"):
        call_factory(f"{file}:make", {}, "a model")
    with pytest.raises(InvalidInput, match=r"no function or class 'mak'; did you mean 'make'\?"):
        call_factory(f"{file}:mak", {}, "a model")
    with pytest.raises(InvalidInput, match="no function or class 'value'"):
        call_factory(f"{file}:value", {}, "a model")
    with pytest.raises(InvalidInput, match=r"gone.py: no such file"):
        call_factory(f"{tmp_path}/gone.py:make", {}, "a model")
    with pytest.raises(InvalidInput, match="names no factory"):
        call_factory(f"{file}:", {}, "a model")
    file.write_text("import a_module_nobody_has")
    with pytest.raises(InvalidInput, match="cannot be loaded: ModuleNotFoundError"):
        call_factory(f"{file}:make", {}, "a model")
    with pytest.raises(InvalidInput, match="cannot be loaded: ModuleNotFoundError"):
        call_factory("a_module_nobody_has:make", {}, "a model")


def test_an_extra_that_is_lacking() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"this needs nothing-such, which cannot be imported \(No module named 'a_module_nobody_has'\); "
        r"run: pip install 'expunge\[data\]'",
    ):
        load_extra("a_module_nobody_has", "nothing-such", "data", "this")
