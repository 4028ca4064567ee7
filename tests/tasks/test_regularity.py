from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest

from expunge.errors import InvalidInput, UnknownName
from expunge.tasks.regularity import REGULARITIES, regularity_name, regularity_value


@pytest.mark.parametrize(
    ("given", "expected"),
    [("random", 0.0), ("interclass", 0.5), ("poison", 1.0), (0, 0.0), (1, 1.0), (0.25, 0.25), ("0.25", 0.25)],
)
def test_value(given: str | float, expected: float) -> None:
    assert regularity_value(given) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "random"), (0.5, "interclass"), (1, "poison"), (0.25, "0.25"), (1 / 3, "0.333333")],
)
def test_name(value: float, expected: str) -> None:
    assert regularity_name(value) == expected


def test_every_name_leads_to_its_point_and_back() -> None:
    assert [regularity_name(regularity_value(name)) for name in REGULARITIES] == list(REGULARITIES)


def test_unknown_name() -> None:
    message = "unknown regularity 'poisn'; expected random, interclass, poison or a number in [0, 1]"
    with pytest.raises(UnknownName, match=re.escape(message)):
        regularity_value("poisn")


@pytest.mark.parametrize("given", [-0.1, 1.1, math.nan, math.inf, "2"])
def test_outside_the_axis(given: str | float) -> None:
    message = "regularity must lie in [0, 1] (0 random, 0.5 interclass, 1 poison), got "
    with pytest.raises(InvalidInput, match=re.escape(f"{message}{float(given)}")):
        regularity_value(given)


def test_needs_no_torch() -> None:
    code = "import sys, expunge.tasks.regularity; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
