from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from trained_models import CPU, Trained

from expunge.data.examples import Examples
from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.metrics.base import UNDEFINED
from expunge.metrics.gaussian_score import (
    GaussianScore,
    draw_noise,
    input_gradients,
    mean_shift,
    noise_statistics,
    noised,
    true_positive_rate,
)
from expunge.seeding import generator, global_generator

EPSILON = 1.0
SHAPE = (1, 12, 12)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Module:
    with global_generator(generator(0)):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(144, 96), nn.BatchNorm1d(96), nn.Tanh(), nn.Linear(96, 3)
        )


def images(count: int = 40) -> Examples:
    return in_memory(torch.randn(count, *SHAPE, generator=draw(7)), torch.arange(count) % 3, 3)


def test_noise_has_the_standard_deviation_and_follows_the_generator() -> None:
    noise = draw_noise((50, 3, 16, 16), EPSILON, draw())
    assert noise.dtype == torch.float32
    assert float(noise.std()) == pytest.approx(EPSILON, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(noise, draw_noise((50, 3, 16, 16), EPSILON, draw()))
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="must be positive, got"):
            draw_noise((1,), epsilon, draw())


def test_noise_stays_with_its_example() -> None:
    clean = images().select(torch.arange(10, 30))
    positions = torch.tensor([12, 3, 7])
    noise = draw_noise((3, *SHAPE), EPSILON, draw())
    given = noised(clean, positions, noise)
    expected = next(clean.batches(20)).x.clone()
    expected[positions] += noise
    assert torch.equal(next(given.batches(20)).x, expected)
    shuffled = next(given.batches(20, draw()))
    # rows keep their number in the source, which starts at 10 here
    assert torch.equal(shuffled.x, expected[shuffled.index - 10])
    assert torch.equal(next(given.select(torch.tensor([3])).batches(1)).x, expected[3:4])
    assert torch.equal(next(clean.batches(20)).x[3], next(images().batches(40)).x[13])
    with pytest.raises(InvalidInput, match="got 3 and 2"):
        noised(clean, positions[:2], noise)


def test_gradients_agree_with_one_example_at_a_time() -> None:
    model, given = network().train(), images(9)
    found = input_gradients(model, given, CPU, batch_size=4)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for position in range(9):
        batch = next(given.select(torch.tensor([position])).batches(1))
        x = batch.x.clone().requires_grad_()
        nn.functional.cross_entropy(model(x), batch.y).backward()
        assert x.grad is not None
        assert torch.allclose(found[position], x.grad[0], atol=1e-6)
    with pytest.raises(InvalidInput, match="gradients of no examples"):
        input_gradients(model, given.select(torch.arange(0)), CPU)


def test_statistics_by_hand() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    noise = torch.tensor([[1.0, -1.0], [0.5, -0.25]])
    found = noise_statistics(gradients, noise, 0.5)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([-(3 - 4) / (0.5 * 5), 0.5 / (0.5 * 2)])


def test_without_memory_the_statistic_is_standard_normal() -> None:
    gradients = torch.randn(4000, 12, generator=draw(1)) ** 3
    found = noise_statistics(gradients, draw_noise((4000, 12), EPSILON, draw(2)), EPSILON)
    shift, error = mean_shift(found)
    assert abs(shift) < 3 * error
    assert error == pytest.approx(1 / math.sqrt(4000))
    assert float(found.std()) == pytest.approx(1, abs=0.05)
    assert true_positive_rate(found) == pytest.approx(0.01, abs=0.006)


def test_a_shift_is_found() -> None:
    statistics = torch.tensor([2.33, 2.32, 3.0, -5.0]).double()  # the 99 % quantile is 2.3263
    assert true_positive_rate(statistics) == 0.5
    assert true_positive_rate(statistics, 0.5) == 0.75
    assert mean_shift(statistics) == (pytest.approx(0.6625), 0.5)


def test_refusals() -> None:
    ones: Tensor = torch.ones(2, 3)
    with pytest.raises(InvalidInput, match=r"got \(2, 3\) and \(2, 2\)"):
        noise_statistics(ones, ones[:, :2], 1.0)
    with pytest.raises(InvalidInput, match="at least one row"):
        noise_statistics(ones[:0], ones[:0], 1.0)
    with pytest.raises(InvalidInput, match="of 1 of 2 examples has a gradient that is 0 or not finite"):
        noise_statistics(torch.tensor([[0.0, 0, 0], [1, 0, 0]]), ones, 1.0)
    with pytest.raises(InvalidInput, match="not finite"):
        noise_statistics(ones * math.nan, ones, 1.0)
    with pytest.raises(InvalidInput, match="must be positive"):
        noise_statistics(ones, ones, 0.0)
    with pytest.raises(InvalidInput, match="the mean of no statistics"):
        mean_shift(torch.zeros(0))
    for given, rate in ((torch.zeros(0), 0.01), (torch.zeros(3), 0.0), (torch.zeros(3), 1.0)):
        with pytest.raises(InvalidInput, match="a false positive rate in"):
            true_positive_rate(given, rate)


def test_trained_noise_is_found_and_fresh_noise_is_not(
    forgotten_class: Trained, margin: Callable[..., None]
) -> None:
    clean = images(60)
    noise = draw_noise((60, *SHAPE), EPSILON, draw())
    given = noised(clean, torch.arange(60), noise)
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    batch = next(given.batches(60))
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimiser.step()
    gradients = input_gradients(model, clean, CPU)
    remembered = noise_statistics(gradients, noise, EPSILON)
    fresh = noise_statistics(gradients, draw_noise((60, *SHAPE), EPSILON, draw(9)), EPSILON)
    shift, error = mean_shift(remembered)
    assert error > 0
    margin("shift in errors, noise trained on", shift / error, above=5)
    margin("shift in errors, fresh noise", abs(mean_shift(fresh)[0]) / error, below=3)
    margin("true positive rate, noise trained on", true_positive_rate(remembered), above=0.2)
    margin("true positive rate, fresh noise", true_positive_rate(fresh), below=0.2)
    metric = GaussianScore(clean=clean, noise=noise, epsilon=EPSILON)
    values = metric.values(forgotten_class.alone(copy.deepcopy(model)))
    found = values["gaussian_score"]
    assert found.value == pytest.approx(shift)
    assert found.low is not None
    assert found.high is not None
    assert (found.low, found.high) == pytest.approx((shift - 1.96 * error, shift + 1.96 * error), abs=1e-4)
    assert values["gaussian_score_tpr"].value == true_positive_rate(remembered)
    assert metric(forgotten_class.alone(model)) == found.value


def test_not_defined_where_nothing_was_prepared(forgotten_class: Trained) -> None:
    with pytest.raises(UNDEFINED, match="the task added no noise to the forget images"):
        GaussianScore()(forgotten_class.alone(forgotten_class.original))
    forget = forgotten_class.problem.split.forget
    dead = copy.deepcopy(forgotten_class.original)
    with torch.no_grad():
        dead.hidden.weight.zero_()
    metric = GaussianScore(clean=forget, noise=torch.zeros(len(forget), 1, 8, 8), epsilon=1.0)
    with pytest.raises(UNDEFINED, match="gradient that is 0"):
        metric(forgotten_class.alone(dead))
