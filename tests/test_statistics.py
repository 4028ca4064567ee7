from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from expunge.errors import InvalidInput
from expunge.statistics import half_width, holm, paired_t, variance_components


def test_the_interval_by_hand() -> None:
    # t with 2 degrees of freedom: 4.302653 at 97.5 %; s = 1
    assert half_width(1.0, 3) == pytest.approx(4.302652729696 / math.sqrt(3))


def test_the_interval_is_scipys() -> None:
    values = [0.2, 0.5, 0.9]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = half_width(np.array([np.std(values, ddof=1), 1.0]), np.array([3, 1]))
    assert found[0] == pytest.approx((high - low) / 2)
    assert math.isnan(found[1])  # one value has no interval


def test_components_by_hand() -> None:
    # means 2, 6, 10: MS_a = 2 * 32 / 2 = 32; MS_e = 6 / 3 = 2; (32 - 2) / 2 = 15
    found = variance_components({0: [1.0, 3.0], 1: [5.0, 7.0], 2: [9.0, 11.0]})
    assert found == pytest.approx((math.sqrt(15), math.sqrt(2)))


def test_components_of_unequal_groups_by_hand() -> None:
    training, unlearning = variance_components({"a": [0.0, 2.0], "b": [4.0, 5.0, 6.0, 5.0]})
    grand = 22 / 6
    between = 2 * (1 - grand) ** 2 + 4 * (5 - grand) ** 2
    within = (2 + 2) / 4
    n_0 = (6 - (4 + 16) / 6) / 1
    assert unlearning == pytest.approx(math.sqrt(within))
    assert training == pytest.approx(math.sqrt((between - within) / n_0))


def test_components_are_recovered() -> None:
    draw = random.Random(0)
    trained = [draw.gauss(0.9, 0.03) for _ in range(2000)]
    found = variance_components({i: [draw.gauss(mu, 0.01) for _ in range(3)] for i, mu in enumerate(trained)})
    assert found == pytest.approx((0.03, 0.01), rel=0.05)


def test_what_the_seeds_cannot_tell() -> None:
    assert variance_components({0: [1.0], 1: [2.0], 2: [4.0]}) == (None, None)
    assert variance_components({0: [0.1, 0.2, 0.3]}) == (None, pytest.approx(0.1))
    # a deterministic method: nothing varies between its unlearning seeds
    assert variance_components({0: [1.0] * 50, 1: [2.0] * 50, 2: [4.0] * 50}) == pytest.approx(
        (math.sqrt(7 / 3), 0)
    )


def test_noise_that_explains_everything_leaves_no_training_component() -> None:
    found = variance_components({0: [0.0, 10.0], 1: [1.0, 9.0]})
    assert found == pytest.approx((0.0, math.sqrt((50 + 32) / 2)))


def test_the_paired_test_by_hand() -> None:
    # differences 1, 2, 3: t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    expected = (2.0, 4.302652729696 / math.sqrt(3), 1 - t / math.sqrt(t**2 + 2))
    assert paired_t([1.0, 2.0, 3.0]) == pytest.approx(expected)
    assert paired_t([-1.0, -2.0, -3.0]) == pytest.approx((-2.0, *expected[1:]))


def test_the_paired_test_agrees_with_scipy() -> None:
    draw = random.Random(1)
    first = [draw.gauss(0.8, 0.1) for _ in range(12)]
    second = [value + draw.gauss(0.02, 0.05) for value in first]
    expected = stats.ttest_rel(first, second)
    mean, half, p = paired_t([a - b for a, b in zip(first, second, strict=True)])
    low, high = expected.confidence_interval(0.95)
    assert (mean - half, mean + half, p) == pytest.approx((low, high, expected.pvalue))


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_differences_that_do_not_vary(shift: float, p: float) -> None:
    assert paired_t([shift, shift]) == (shift, 0.0, p)


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="at least one training seed, got none"):
        variance_components({})
    with pytest.raises(InvalidInput, match="at least one value, got none"):
        variance_components({0: [1.0], 1: []})
    with pytest.raises(InvalidInput, match=r"1 that are not \(the first is nan\)"):
        variance_components({0: [1.0, math.nan]})
    with pytest.raises(InvalidInput, match="at least two pairs, got 1"):
        paired_t([1.0])
    with pytest.raises(InvalidInput, match="finite values"):
        paired_t([1.0, math.inf])


def test_holm_is_the_step_down_rule() -> None:
    # 4 x 0.01, 3 x 0.02, then 2 x 0.03 = 0.06, which is no less than the one before, and 0.5.
    assert holm([0.5, 0.03, 0.01, 0.02]) == pytest.approx([0.5, 0.06, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_holm_rejects_what_the_sequential_test_rejects(alpha: float) -> None:
    draw = random.Random(0)
    for _ in range(50):
        p_values = [draw.random() ** 4 for _ in range(draw.randint(1, 9))]
        rejected = set()
        for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[position] > alpha / (len(p_values) - rank):
                break
            rejected.add(position)
        assert {number for number, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(InvalidInput, match=r"p-values lie in \[0, 1\], got 1.5"):
        holm([0.1, 1.5])
