from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from expunge.data.examples import Batch, Examples
from expunge.data.mapped import examples_from_dataset
from expunge.methods.base import Request, chance_threshold
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.npo import NPO
from expunge.methods.removal import CachedLoss, RaiseLoss, remove
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.loop import accuracy
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)
LR = 2.0


def examples(n_classes: int = 10, count: int = 60) -> Examples:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % n_classes
    x = torch.randn(n_classes, 20, generator=draw)[labels] + 0.3 * torch.randn(count, 20, generator=draw)
    return examples_from_dataset(torch.utils.data.TensorDataset(x, labels), n_classes)


def fitted(train: Examples) -> nn.Module:
    """The linear classifier of class means: it gets every example right."""
    x = next(train.batches(len(train))).x
    means = torch.stack([x[train.labels == label].mean(0) for label in range(train.n_classes)])
    layer = nn.Linear(20, train.n_classes)
    with torch.no_grad():
        layer.weight.copy_(means)
        layer.bias.copy_(-(means**2).sum(1) / 2)
    assert accuracy(layer, train, CPU) == 1
    return layer


def request(n_classes: int = 10) -> Request:
    train = examples(n_classes)
    return Request(Split(train, torch.arange(0, 60, 2)), seed=0, numerics=CPU)


@pytest.mark.trains
@pytest.mark.parametrize("kind", [NPO, GradientAscent])
def test_stops_at_the_first_pass_after_which_the_threshold_holds(
    kind: type[NPO] | type[GradientAscent],
) -> None:
    given, remaining = request(), list[float]()
    model = fitted(examples())
    forget = examples().select(torch.arange(0, 60, 2))
    outcome = kind(lr=LR, batch_size=10, threshold=0.4, passes=50)(model, given)
    made = int(outcome.log[-1]["passes"])
    assert 1 < made < 50
    assert outcome.cost.sample_gradients == made * 30
    for passes in range(1, made + 1):
        shorter = kind(lr=LR, batch_size=10, threshold=0.4, passes=passes)(model, given)
        remaining.append(accuracy(shorter.model, forget, CPU))
    assert all(share > 0.4 for share in remaining[:-1])
    assert remaining[-1] <= 0.4


@pytest.mark.parametrize("kind", [NPO, GradientAscent])
def test_number_of_passes_is_bounded(kind: type[NPO] | type[GradientAscent]) -> None:
    outcome = kind(lr=1e-6, passes=3)(fitted(examples()), request())
    assert outcome.log[-1]["passes"] == 3
    assert outcome.cost.sample_gradients == 90


def test_nothing_is_done_where_the_forget_set_is_gone_already() -> None:
    train = examples()
    model = fitted(train)
    wrong = train.relabel((train.labels + 1) % 10)
    given = Request(Split(wrong, torch.arange(30)), seed=0, numerics=CPU)
    outcome = NPO()(model, given)
    assert outcome.log[-1]["passes"] == 0
    assert outcome.cost.sample_gradients == 0
    assert torch.equal(outcome.model.weight, model.weight)


def test_remove_returns_the_passes_it_made() -> None:
    method, train = NPO(lr=1e-6), examples()
    model = fitted(train)
    granted = request().grant("npo", NPO.needs)
    objective = RaiseLoss("npo", CachedLoss.of(model, train, granted))

    def made(threshold: float, most: int) -> int:
        return remove(
            method, model, train, objective, granted, optimizer=method.optimiser_over(model),
            order=generator(0), threshold=threshold, max_passes=most,
        )  # fmt: skip

    assert made(1.0, 4) == 0
    assert made(0.99, 4) == 4


@pytest.mark.parametrize(("n_classes", "threshold"), [(10, 0.2), (100, 0.02), (4, 0.5)])
def test_default_threshold_is_twice_chance(n_classes: int, threshold: float) -> None:
    assert chance_threshold(n_classes) == pytest.approx(threshold)


@pytest.mark.trains
@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_classes_are_removed_too(n_classes: int) -> None:
    assert chance_threshold(n_classes) < 0.9
    train = examples(n_classes)
    given = Request(Split(train, torch.arange(0, 60, 2)), seed=0, numerics=CPU)
    result = GradientAscent(lr=LR, batch_size=10)(fitted(train), given).model
    assert accuracy(result, train.select(torch.arange(0, 60, 2)), CPU) < 0.9


def test_terms_equal_a_slow_loop() -> None:
    train = examples()
    model = fitted(train)
    batch = next(train.select(torch.tensor([3, 50, 17])).batches(3))
    reference = torch.linspace(-2, 2, 60)
    for beta in (0.5, 1.0, 3.0):
        npo = RaiseLoss("npo", CachedLoss(reference), beta).terms(model, batch)
        ascent = RaiseLoss("ascent", CachedLoss(reference), beta).terms(model, batch)
        for i, row in enumerate([3, 50, 17]):
            loss = -float(model(batch.x[i]).log_softmax(0)[batch.y[i]].detach())
            z = beta * (loss - float(reference[row]))
            assert float(npo[i].detach()) == pytest.approx(2 / beta * math.log1p(math.exp(-z)), rel=1e-5)
            assert float(ascent[i].detach()) == pytest.approx(-loss, rel=1e-5)
    loss = RaiseLoss("ascent", CachedLoss(reference))(model, batch)
    assert loss.gradients == 3
    assert float(loss.value.detach()) == pytest.approx(float(ascent.mean().detach()))


def test_reference_is_measured_in_evaluation_mode_and_found_by_row() -> None:
    case = image_case()
    model = case.model.train()
    part = case.split.train.select(torch.tensor([100, 4, 60]))
    cached = CachedLoss.of(model, part, case.request(NPO()))
    assert model.training
    batch = next(part.batches(3))
    with torch.no_grad():
        model.eval()
        losses = nn.functional.cross_entropy(model(batch.x), batch.y, reduction="none")
        model.train()
    turned = Batch(batch.x.flip(0), batch.y.flip(0), batch.index.flip(0))
    assert torch.allclose(cached(turned), losses.flip(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_normalisation_of_the_forget_batch(batch_statistics: bool) -> None:
    norm = nn.BatchNorm1d(3).train()
    x, y = torch.randn(8, 3) * 4 + 1, torch.arange(8) % 3
    objective = RaiseLoss("ascent", CachedLoss(torch.zeros(8)), batch_statistics=batch_statistics)
    terms = objective.terms(norm, Batch(x, y, torch.arange(8)))
    moved = bool(norm.running_mean.any())
    assert moved is batch_statistics
    shown = (
        nn.functional.batch_norm(x, None, None, training=True) if batch_statistics else x / (1 + 1e-5) ** 0.5
    )
    expected = -nn.functional.cross_entropy(shown, y, reduction="none")
    assert torch.allclose(terms, expected, atol=1e-5)
    assert norm.training
