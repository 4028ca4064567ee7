from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from trained_models import Trained

from expunge.errors import InvalidInput
from expunge.metrics.compared_predictions import JSDivergence, js_divergence


def loop(first: Tensor, second: Tensor) -> float:
    total = 0.0
    for a, b in zip(first.double(), second.double(), strict=True):
        for p, q in zip(a.softmax(0).tolist(), b.softmax(0).tolist(), strict=True):
            m = (p + q) / 2
            total += (p * math.log(p / m) + q * math.log(q / m)) / 2
    return total / len(first)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_agrees_with_a_plain_loop(classes: int) -> None:
    first, second = 2 * torch.randn(6, classes), 2 * torch.randn(6, classes)
    assert js_divergence(first, second) == pytest.approx(loop(first, second))
    assert js_divergence(second, first) == pytest.approx(js_divergence(first, second))


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_between_zero_and_log_two_for_any_number_of_classes(classes: int) -> None:
    first = torch.zeros(3, classes)
    first[:, 0] = 900
    assert js_divergence(first, first.roll(1, 1)) == pytest.approx(math.log(2))
    assert js_divergence(first, first) == 0


def test_one_certain_and_one_uniform() -> None:
    # m = ((1 + 1/C) / 2, 1/(2C), ...): KL(p || m) = log(2C / (C + 1))
    for classes in (2, 10, 100):
        certain, uniform = torch.zeros(1, classes), torch.zeros(1, classes)
        certain[0, 0] = 900
        share = 1 / classes
        second = share * math.log(2 * share / (1 + share)) + (1 - share) * math.log(2)
        by_hand = (math.log(2 / (1 + share)) + second) / 2
        assert js_divergence(certain, uniform) == pytest.approx(by_hand)


@pytest.mark.parametrize(("classes", "true", "published"), [(10, 0.534, 0.245), (100, 0.646, 0.040)])
def test_the_published_code_divides_by_the_classes_and_reverses_the_arguments(
    classes: int, true: float, published: float
) -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (4 * torch.randn(20000, classes, generator=draw) for _ in range(2))
    assert js_divergence(first, second) == pytest.approx(true, abs=0.01)
    legacy = js_divergence(first, second, legacy=True)
    assert legacy == pytest.approx(published, abs=0.01)
    p, q = first.double().softmax(1), second.double().softmax(1)
    m = (p + q) / 2
    # "mean" is torch's default and warns that it is not the mathematical mean
    with pytest.warns(UserWarning, match="batchmean"):
        by_torch = 0.5 * F.kl_div(p.log(), m) + 0.5 * F.kl_div(q.log(), m)
    assert legacy == pytest.approx(float(by_torch))


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="at least one example"):
        js_divergence(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(InvalidInput, match="NaN or inf"):
        js_divergence(torch.full((1, 2), math.nan), torch.zeros(1, 2))


def test_of_models(forgotten_class: Trained) -> None:
    metric = JSDivergence()
    assert metric(forgotten_class.of(forgotten_class.retrained)) == pytest.approx(0, abs=1e-12)
    assert 0.4 < metric(forgotten_class.of(forgotten_class.original)) <= math.log(2)
