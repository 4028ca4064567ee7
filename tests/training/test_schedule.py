from __future__ import annotations

from itertools import pairwise

import pytest

from expunge.errors import UnknownName
from expunge.training.schedule import constant, schedule_named, warmup_decay


@pytest.mark.parametrize(
    ("step", "rate", "digits"), [(0, 0.00061, 5), (40, 0.025, 5), (2000, 0.0152, 4), (3999, 0.0052, 4)]
)
def test_published_rates_of_the_first_training(step: int, rate: float, digits: int) -> None:
    assert round(0.025 * warmup_decay(step, 4000), digits) == rate


def test_published_last_rate_of_unlearning() -> None:
    assert round(0.005 * warmup_decay(979, 980), 5) == 0.00104


def test_rises_in_equal_steps_then_falls_in_equal_steps() -> None:
    factors = [warmup_decay(step, 500) for step in range(500)]
    assert factors[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    falls = [before - after for before, after in pairwise(factors[5:])]
    assert falls == pytest.approx([1 / (1.25 * 500)] * len(falls))


def test_short_runs_have_no_rise() -> None:
    assert [warmup_decay(step, 4) for step in range(4)] == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_names() -> None:
    assert schedule_named("constant") is constant
    assert schedule_named("warmup_decay") is warmup_decay
    with pytest.raises(
        UnknownName, match=r"unknown schedule 'linear' \(known: constant, warmup_decay, cosine\)"
    ):
        schedule_named("linear")
