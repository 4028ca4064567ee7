from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from expunge.errors import InvalidInput
from expunge.statistics import holm, mean_interval, paired_t_test, variance_components


def test_the_interval_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    # t with 2 degrees of freedom: 4.302653 at 97.5 %; s = 1
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302652729696 / math.sqrt(3))
    assert found.low == pytest.approx(2 - 4.302652729696 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.302652729696 / math.sqrt(3))
    assert mean_interval([1.0, 2.0, 3.0], 0.5).half_width == pytest.approx(0.816496580928 / math.sqrt(3))


def test_one_value_has_no_interval() -> None:
    found = mean_interval([0.7])
    assert (found.mean, found.half_width, found.low, found.high, found.n) == (0.7, None, None, None, 1)


def test_components_by_hand() -> None:
    found = variance_components({0: [1.0, 3.0], 1: [5.0, 7.0], 2: [9.0, 11.0]})
    # means 2, 6, 10: MS_a = 2 * 32 / 2 = 32; MS_e = 6 / 3 = 2; (32 - 2) / 2 = 15
    assert found.unlearning == pytest.approx(math.sqrt(2))
    assert found.training == pytest.approx(math.sqrt(15))
    assert (found.n_training, found.n) == (3, 6)
    assert found.mean == mean_interval([2.0, 6.0, 10.0])


def test_components_of_unequal_groups_by_hand() -> None:
    found = variance_components({"a": [0.0, 2.0], "b": [4.0, 5.0, 6.0, 5.0]})
    grand = 22 / 6
    between = 2 * (1 - grand) ** 2 + 4 * (5 - grand) ** 2
    within = (2 + 2) / 4
    n_0 = (6 - (4 + 16) / 6) / 1
    assert found.unlearning == pytest.approx(math.sqrt(within))
    assert found.training == pytest.approx(math.sqrt((between - within) / n_0))
    assert found.mean.mean == 3.0


def test_components_are_recovered() -> None:
    draw = random.Random(0)
    trained = [draw.gauss(0.9, 0.03) for _ in range(2000)]
    found = variance_components({i: [draw.gauss(mu, 0.01) for _ in range(3)] for i, mu in enumerate(trained)})
    assert found.training == pytest.approx(0.03, rel=0.05)
    assert found.unlearning == pytest.approx(0.01, rel=0.05)


def test_more_unlearning_seeds_do_not_narrow_the_interval() -> None:
    few = variance_components({0: [1.0], 1: [2.0], 2: [4.0]})
    many = variance_components({0: [1.0] * 50, 1: [2.0] * 50, 2: [4.0] * 50})
    assert few.mean == many.mean
    assert (few.training, few.unlearning) == (None, None)
    # a deterministic method: nothing varies between its unlearning seeds
    assert many.unlearning == 0.0
    assert many.training == pytest.approx(math.sqrt(7 / 3))


def test_noise_that_explains_everything_leaves_no_training_component() -> None:
    found = variance_components({0: [0.0, 10.0], 1: [1.0, 9.0]})
    assert found.training == 0.0
    assert found.unlearning == pytest.approx(math.sqrt((50 + 32) / 2))


def test_one_training_seed_says_nothing_about_training() -> None:
    found = variance_components({0: [0.1, 0.2, 0.3]})
    assert (found.training, found.mean.half_width, found.n_training, found.n) == (None, None, 1, 3)
    assert found.unlearning == pytest.approx(0.1)


def test_the_paired_test_by_hand() -> None:
    first = {0: 3.0, 1: 4.0, 2: 8.0, 9: 100.0}
    second = {2: 5.0, 0: 2.0, 1: 2.0, 7: -1.0, 8: -1.0}
    found = paired_t_test(first, second)
    # differences 1, 2, 3: t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert (found.difference.mean, found.difference.n, found.unpaired) == (2.0, 3, 3)
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert found.difference.half_width == pytest.approx(4.302652729696 / math.sqrt(3))
    back = paired_t_test(second, first)
    assert (back.difference.mean, back.p) == (-2.0, pytest.approx(found.p))


def test_the_paired_test_agrees_with_scipy() -> None:
    draw = random.Random(1)
    first = {seed: draw.gauss(0.8, 0.1) for seed in range(12)}
    second = {seed: value + draw.gauss(0.02, 0.05) for seed, value in first.items()}
    expected = stats.ttest_rel(list(first.values()), list(second.values()))
    assert paired_t_test(first, second).p == pytest.approx(float(expected.pvalue))


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_differences_that_do_not_vary(shift: float, p: float) -> None:
    found = paired_t_test({0: 1.0, 1: 2.0}, {0: 1.0 - shift, 1: 2.0 - shift})
    assert (found.difference.mean, found.difference.half_width, found.p) == (shift, 0.0, p)


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="at least one value, got none"):
        mean_interval([])
    with pytest.raises(InvalidInput, match=r"1 that are not \(the first is nan\)"):
        mean_interval([1.0, math.nan])
    with pytest.raises(InvalidInput, match=r"must lie in \(0, 1\), got 95"):
        mean_interval([1.0, 2.0], 95)
    with pytest.raises(InvalidInput, match="at least one training seed, got none"):
        variance_components({})
    with pytest.raises(InvalidInput, match="at least one value, got none"):
        variance_components({0: [1.0], 1: []})
    with pytest.raises(InvalidInput, match="at least two keys that both methods have, got 1 of 2 and 2"):
        paired_t_test({0: 1.0, 1: 1.0}, {1: 1.0, 2: 1.0})
    with pytest.raises(InvalidInput, match="finite values"):
        paired_t_test({0: 1.0, 1: math.inf}, {0: 1.0, 1: 1.0})


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
