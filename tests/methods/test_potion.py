from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.importance import Importances, label_free_importances
from expunge.methods.potion import Potion, percentile, percentile_of, sorted_ratios
from expunge.tasks.base import Split
from expunge.testing.method_contract import Case, image_case
from expunge.training.cost import Meter
from expunge.training.loop import accuracy


def test_percentile_rule() -> None:
    assert percentile_of(0.02) == pytest.approx(98.90, abs=0.005)
    assert percentile_of(0.02 / 25) == pytest.approx(99.92, abs=0.005)
    assert percentile_of(0.02 * 1.1**49) == pytest.approx(94.6, abs=0.05)
    assert percentile_of(1e300) == 0.0


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_percentile_is_that_of_numpy(count: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(0)).sort().values
    for percent in (0.0, 3.7, 50.0, 99.92, 100.0):
        assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), rel=1e-5)


def test_ratios_without_nan_and_inf() -> None:
    forget = {"a": torch.tensor([1.0, 0.0, 3.0]), "b": torch.tensor([[2.0]])}
    retain = {"a": torch.tensor([0.0, 0.0, 2.0]), "b": torch.tensor([[4.0]])}
    assert sorted_ratios(forget, retain).tolist() == [0.5, 1.5]
    with pytest.raises(InvalidInput, match="no parameter matters to the retained examples"):
        sorted_ratios(forget, {name: torch.zeros_like(tensor) for name, tensor in retain.items()})


def slow_search(case: Case, method: Potion, fraction: float, tries: int) -> tuple[nn.Module, int]:
    """The published loop: from a fresh copy of the model in every try."""
    forget, retain = case.split.forget, case.split.retain

    def importances(examples: Any) -> Importances:
        return label_free_importances(
            case.fresh(), examples, case.numerics, Meter(), batch_size=method.batch_size
        )

    small, rest = importances(forget), importances(retain)
    ratios = np.concatenate([(small[name] / rest[name]).flatten().numpy() for name in small])
    ratios = ratios[np.isfinite(ratios)]
    before = case.forget_accuracy(case.fresh())
    made = 0
    for _ in range(tries):
        made += 1
        model = case.fresh()
        threshold = float(np.percentile(ratios.astype(np.float64), 100 - math.log(1 + 100 * fraction)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in small:
                    chosen = small[name] > threshold * rest[name]
                    parameter[chosen] *= (rest[name] / small[name])[chosen].clamp(max=1)
        left = accuracy(model, forget, case.numerics)
        if left <= method.rho * before or left <= 1 / 3:
            break
        fraction *= method.growth
    return model, made


@pytest.mark.parametrize(
    ("settings", "divisor", "tries"),
    [
        ({}, 25, 500),
        ({"rho": 0.75}, 25, 500),
        ({"compat": "official"}, 1, 50),
        ({"growth": 1.5, "tries": 3, "start_divisor": 5.0}, 5, 3),
        ({"growth": 1.5, "compat": "official", "start_divisor": 2.0}, 2, 50),
    ],
)
def test_search_equals_a_slow_loop(settings: dict[str, Any], divisor: float, tries: int) -> None:
    case, method = image_case(), Potion(batch_size=32, augment=False, **settings)
    share = len(case.split.forget) / len(case.split.train)
    expected, made = slow_search(case, method, share / divisor, tries)
    outcome = method(case.fresh(), case.request(method))
    assert len(outcome.log) == made
    assert outcome.log[0]["percentile"] == pytest.approx(100 - math.log(1 + 100 * share / divisor))
    for ours, theirs in zip(outcome.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-7)


def test_last_try_is_returned_and_logged_where_none_gets_there() -> None:
    case, method = image_case(), Potion(batch_size=32, tries=4)
    outcome = method(case.fresh(), case.request(method))
    assert [row["tries"] for row in outcome.log] == [1, 2, 3, 4]
    assert [row["reached"] for row in outcome.log] == [0, 0, 0, 0]
    assert outcome.log[-1]["forget_accuracy"] == case.forget_accuracy(outcome.model)
    assert outcome.cost.sample_gradients == len(case.split.train)


def test_a_search_that_gets_there_says_so_in_its_last_row() -> None:
    case, method = image_case(), Potion(batch_size=32, start_divisor=1.0, growth=1.5)
    outcome = method(case.fresh(), case.request(method))
    assert [row["reached"] for row in outcome.log] == [0] * (len(outcome.log) - 1) + [1]
    assert case.forget_accuracy(outcome.model) <= 1 / 3
    thresholds = [row["threshold"] for row in outcome.log]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rho": 1.0}, r"rho is the share of the accuracy that may remain, in \[0, 1\), got 1.0"),
        ({"threshold": 1.0}, r"threshold is an accuracy in \[0, 1\), got 1.0"),
        ({"tries": 0}, "tries must be at least 1, got 0"),
        ({"growth": 1.0}, "growth must be above 1, or the search stands still, got 1.0"),
        ({"start_divisor": 0.0}, "start_divisor must be positive"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"compat": "rem"}, r"compat must be one of \(None, 'official'\), got 'rem'"),
    ],
)
def test_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Potion(**wrong)


def test_a_model_that_is_blind_is_refused() -> None:
    x = torch.zeros(4, 3)
    train = examples_from_dataset(torch.utils.data.TensorDataset(x, torch.arange(4) % 2), 2)
    given = Request(Split(train, torch.tensor([0])), seed=0, numerics=image_case().numerics)
    with pytest.raises(InvalidInput, match="no parameter matters to the retained examples"):
        Potion()(nn.Linear(3, 2, bias=False), given)
