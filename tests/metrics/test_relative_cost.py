from __future__ import annotations

import math

import pytest

from expunge.errors import InvalidInput
from expunge.metrics.cost import RelativeCost, relative_cost, total_cost
from expunge.training.cost import Meter

RETRAIN = {"seconds": 200.0, "sample_gradients": 4000, "peak_memory": 1000}


def test_by_hand() -> None:
    cost = {"seconds": 10.0, "sample_gradients": 500, "peak_memory": 1500}
    assert relative_cost(cost, RETRAIN) == RelativeCost(0.05, 0.125, 1.5)
    assert relative_cost(RETRAIN, RETRAIN) == RelativeCost(1, 1, 1)


def test_meters_and_dictionaries_are_alike() -> None:
    meter = Meter(seconds=10.0, sample_gradients=500, peak_memory=1500)
    assert relative_cost(meter, RETRAIN) == RelativeCost(0.05, 0.125, 1.5)
    assert relative_cost(RETRAIN, meter) == RelativeCost(20, 8, pytest.approx(2 / 3))


def test_what_is_not_known_stays_so() -> None:
    assert relative_cost(Meter(seconds=1.0), RETRAIN) == RelativeCost(0.005, 0, None)
    assert relative_cost(RETRAIN, {"seconds": 0.0}) == RelativeCost(None, None, None)


def test_parts_add_up_and_peaks_do_not() -> None:
    mask = Meter(seconds=3.0, sample_gradients=100, peak_memory=800)
    whole = total_cost(mask, {"seconds": 10.0, "sample_gradients": 500, "peak_memory": 700})
    assert whole == {"seconds": 13.0, "sample_gradients": 600, "peak_memory": 800}
    assert total_cost(mask, Meter(seconds=1.0))["peak_memory"] is None
    assert relative_cost(whole, RETRAIN) == RelativeCost(0.065, 0.15, 0.8)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_refusals(value: float) -> None:
    with pytest.raises(InvalidInput, match="a cost is finite and at least 0, got seconds"):
        relative_cost({"seconds": value}, RETRAIN)
    with pytest.raises(InvalidInput, match="the cost of no parts"):
        total_cost()
