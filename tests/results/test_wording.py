from __future__ import annotations

import math

import pytest

from expunge.results.wording import (
    count,
    counted,
    duration,
    megabytes,
    percent,
    printable,
    signed_interval,
    with_interval,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0, "0 ms"), (0.00123, "1.23 ms"), (0.0994, "99.4 ms"), (0.0996, "0.0996 s"), (9.999, "10 s"),
     (99.94, "99.9 s"), (99.96, "100 s"), (5999.0, "5999 s"), (7200.0, "2 h")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (0, "0"),
        (999.4, "999"),
        (999.6, "1 k"),
        (43_110, "43.1 k"),
        (999_600, "1 M"),
        (2e9, "2 G"),
    ],
)
def test_count(number: float | None, text: str) -> None:
    assert count(number) == text


def test_fractions_and_sizes() -> None:
    assert percent(0.12345) == "12.3"
    assert percent(0.12345, 0) == "12"
    assert percent(None) == "–"
    assert megabytes(118_296_576) == "118"
    assert with_interval(0.5, 0.05) == "50.0 ±5.0"
    assert with_interval(0.5, 0.05, "") == "50.0±5.0"
    assert with_interval(0.5, math.nan) == with_interval(0.5) == "50.0"
    assert with_interval(None) == with_interval(math.nan) == "–"
    assert [signed_interval(0.1, 0.02), signed_interval(-0.1), signed_interval(math.nan)] == [
        "+10.0 ±2.0",
        "-10.0",
        "–",
    ]
    assert [counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_printable() -> None:
    assert (
        printable("rem\x1b[31m\n\tx")
        == "rem\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}x"
    )
    assert printable("réméd_ü <b>") == "réméd_ü <b>"
