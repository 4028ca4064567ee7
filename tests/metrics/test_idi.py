from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from trained_models import CPU, Trained

from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.logit_mask import LogitMask
from expunge.metrics.base import UNDEFINED
from expunge.metrics.idi import IDI, Estimator, difference_index, info_nce


def loop(scores: Tensor, labels: Tensor) -> float:
    total, n = 0.0, len(labels)
    for k in range(n):
        against = sum(math.exp(float(scores[k, labels[j]])) for j in range(n)) / n
        total += float(scores[k, labels[k]]) - math.log(against)
    return total / n


def test_info_nce_agrees_with_a_plain_loop() -> None:
    labels = torch.tensor([0, 1, 1, 0, 1, 2])
    scores = torch.randn(6, 3, dtype=torch.float64)
    assert float(info_nce(scores, labels)) == pytest.approx(loop(scores, labels))


def test_info_nce_closed_forms() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert float(info_nce(torch.full((4, 2), 3.0).double(), labels)) == pytest.approx(0)
    # scores that tell the label surely reach the entropy of the labels
    sure = 400 * torch.nn.functional.one_hot(labels, 2).double()
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(info_nce(sure, labels)) == pytest.approx(entropy)
    with pytest.raises(InvalidInput, match="of no examples"):
        info_nce(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))


def test_difference_index_by_hand() -> None:
    before, after = {"a": 0.6, "b": 0.5}, {"a": 0.2, "b": 0.1}

    def index(unlearned: dict[str, float]) -> float:
        return sum(difference_index(unlearned, before, after).values())

    assert index(before) == pytest.approx(1)
    assert index(after) == pytest.approx(0)
    assert index({"a": 0.4, "b": 0.3}) == pytest.approx(0.5)
    assert index({"a": 0.1, "b": 0.0}) == pytest.approx(-0.25)
    parts = difference_index({"a": 0.6, "b": 0.1}, before, after)
    assert parts == pytest.approx({"a": 0.5, "b": 0})


def test_difference_index_refusals() -> None:
    with pytest.raises(InvalidInput, match="the same layers of three models"):
        difference_index({"a": 0.1}, {"a": 0.1}, {"b": 0.1})
    with pytest.raises(InvalidInput, match=r"tell 0\.0050 nats more .* more than 0\.01 are needed"):
        difference_index({"a": 0.1}, {"a": 0.105}, {"a": 0.1})
    with pytest.raises(InvalidInput, match="nats more about"):
        difference_index({"a": 0.1}, {"a": math.nan}, {"a": 0.1})


def estimate(z: Tensor, forget: Tensor, seed: int = 0) -> float:
    return Estimator(epochs=15, batch_size=50).information(z, forget, torch.Generator().manual_seed(seed))


@pytest.mark.trains
def test_the_estimate_is_near_the_truth(margin: Callable[..., None]) -> None:
    draw = torch.Generator().manual_seed(0)
    forget = torch.arange(600) % 2 == 0
    noise = torch.randn(600, 4, generator=draw)
    margin("error on noise", abs(estimate(noise, forget)), below=0.05)
    apart = noise + 10 * forget[:, None].float()
    margin("error on features apart", abs(estimate(apart, forget) - math.log(2)), below=0.02)
    # one bit through a channel that flips a quarter: log 2 - H(1/4)
    told = forget ^ (torch.rand(600, generator=draw) < 0.25)
    truth = math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    margin("error on a noisy channel", abs(estimate(told[:, None].float(), forget) - truth), below=0.05)


def test_the_estimate_follows_the_generator_alone() -> None:
    forget = torch.arange(40) % 2 == 0
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + forget[:, None].float()
    torch.manual_seed(1)
    first = estimate(z, forget)
    torch.manual_seed(2)
    assert estimate(z, forget) == first != estimate(z, forget, seed=1)


@pytest.mark.trains
def test_features_that_tell_nothing_give_nothing() -> None:
    # sixty examples in a hundred dimensions: a critic learns its half by heart, the other half tells
    z = torch.randn(60, 100, generator=torch.Generator().manual_seed(3))
    assert estimate(z, torch.arange(60) % 2 == 0) < 0.05


@pytest.mark.trains
def test_a_feature_that_is_constant_does_no_harm() -> None:
    forget = torch.arange(200) % 2 == 0
    z = torch.stack([forget.float() * 10, torch.full((200,), 3.0)], 1)
    found = Estimator(batch_size=20).information(z, forget, torch.Generator().manual_seed(0))
    assert found == pytest.approx(math.log(2), abs=0.02)


def test_estimator_refusals() -> None:
    with pytest.raises(
        InvalidInput, match="needs two examples of the forget set and two others, got 1 and 3"
    ):
        estimate(torch.zeros(4, 2), torch.tensor([True, False, False, False]))
    with pytest.raises(InvalidInput, match="NaN or inf"):
        estimate(torch.full((4, 2), math.nan), torch.tensor([True, False, True, False]))
    with pytest.raises(InvalidInput, match="of at least 1, got 0, 16, 30 and 128"):
        Estimator(hidden=0)


def test_a_mask_of_the_logit_is_seen_through(forgotten_class: Trained) -> None:
    problem, original, retrained = forgotten_class
    metric = IDI(layers=("activation",), estimator=Estimator(epochs=10))
    masked = LogitMask()(original, Request(problem.split, seed=0, numerics=CPU)).model
    erased = copy.deepcopy(original)
    with torch.no_grad():
        erased.hidden.weight.zero_()
    assert metric(forgotten_class.of(masked)) == pytest.approx(1)
    assert metric(forgotten_class.of(retrained)) == pytest.approx(0)
    assert metric(forgotten_class.of(erased)) < 0


def test_not_defined_where_both_know_as_much(forgotten_samples: Trained) -> None:
    # whether a sample was trained on cannot be read off this network
    metric = IDI(estimator=Estimator(epochs=2))
    same = forgotten_samples._replace(retrained=forgotten_samples.original)
    with pytest.raises(UNDEFINED, match=r"tell 0\.0000 nats more"):
        metric(same.of(forgotten_samples.original))
    with pytest.raises(UNDEFINED, match="original model, which is not given"):
        metric(forgotten_samples.alone(forgotten_samples.original))


def test_information_of_a_model(forgotten_class: Trained, margin: Callable[..., None]) -> None:
    metric = IDI(estimator=Estimator(epochs=10))
    found = metric.information(forgotten_class.alone(forgotten_class.original))
    assert list(found) == ["hidden"]
    margin("information", found["hidden"], above=0.4, below=math.log(2) + 1e-6)
