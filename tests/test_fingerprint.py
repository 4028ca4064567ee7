from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.fingerprint import fingerprint


@dataclass(frozen=True)
class Settings:
    lr: float = 0.1
    name: str = "x"


@dataclass(frozen=True)
class Others:
    lr: float = 0.1
    name: str = "x"


@dataclass(frozen=True)
class Holder:
    inner: Settings
    values: Tensor


BASE = torch.arange(6, dtype=torch.int64)
DIFFERENT: list[tuple[Any, ...]] = [
    (),
    (None,),
    (0,),
    (0.0,),
    (False,),
    ("",),
    ("0",),
    ((),),
    ({},),
    (1, 2),
    (12,),
    ((1, 2),),
    ((1,), (2,)),
    ("ab", "c"),
    ("a", "bc"),
    ({"a": 1, "b": 2},),
    ({"a": 2, "b": 1},),
    ({"a": 1}, {"b": 2}),
    (Settings(),),
    (Settings(lr=0.2),),
    (Others(),),
    ({"lr": 0.1, "name": "x"},),
    (Holder(Settings(), BASE),),
    (Holder(Settings(), BASE + 1),),
    (BASE,),
    (BASE.view(2, 3),),
    (BASE.view(3, 2),),
    (BASE.to(torch.int32),),
    (BASE.double(),),
    (BASE.flip(0),),
    (BASE[:0],),
    (BASE[:0].view(0, 3),),
    (torch.tensor(0),),
    (torch.tensor([0]),),
    (torch.tensor(0.0),),
    (torch.tensor(-0.0),),
    (torch.tensor([True, False]),),
    (torch.tensor([1, 0], dtype=torch.uint8),),
]


def test_different_contents_differ() -> None:
    assert len({fingerprint(*parts) for parts in DIFFERENT}) == len(DIFFERENT)


def test_form() -> None:
    assert all(re.fullmatch("[0-9a-f]{32}", fingerprint(*parts)) for parts in DIFFERENT)


def test_equal_contents_agree() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) == fingerprint((1, 2))
    assert fingerprint(Settings(lr=0.1)) == fingerprint(Settings())


def test_memory_layout_and_gradients_do_not_matter() -> None:
    x = torch.randn(4, 3, 5, 5)
    for same in (
        x.clone(),
        x.to(memory_format=torch.channels_last),
        x.transpose(0, 1).contiguous().transpose(0, 1),
        torch.cat([x, x])[:4],
        x.clone().requires_grad_(),
    ):
        assert fingerprint(same) == fingerprint(x)


def test_one_bit_counts() -> None:
    x = torch.zeros(1000, dtype=torch.uint8)
    before = fingerprint(x)
    x[777] = 1
    assert fingerprint(x) != before


@pytest.mark.parametrize("part", [object(), {1, 2}, 1j, b"bytes", Settings])
def test_what_has_no_stable_form(part: Any) -> None:
    with pytest.raises(TypeError):
        fingerprint(part)
    with pytest.raises(TypeError):
        fingerprint({"inside": [part]})


def test_another_process_agrees() -> None:
    code = (
        "import torch; from expunge.fingerprint import fingerprint\n"
        "print(fingerprint({'b': [1, None, 'é'], 'a': 0.1}, torch.arange(6)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint({"a": 0.1, "b": [1, None, "é"]}, BASE)
