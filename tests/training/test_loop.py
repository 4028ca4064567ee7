from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import Diverged
from expunge.training.cost import Meter
from expunge.training.loop import Loss, accuracy, cross_entropy, fit, predict, training_mode
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def data(dtype: torch.dtype, count: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(count, 4, generator=draw, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, 3, (count,), generator=draw)


def slope(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of mean cross-entropy with respect to a linear layer's weight, by hand."""
    shares = torch.softmax(x @ weight.T, 1)
    shares[torch.arange(len(y)), y] -= 1
    return shares.T @ x / len(y)


def examples(count: int = 12) -> Examples:
    x, y = data(torch.float32, count)
    return examples_from_dataset(torch.utils.data.TensorDataset(x, y), n_classes=3)


def whole(x: Tensor, y: Tensor) -> Batch:
    return Batch(x, y, torch.arange(len(y)))


@DTYPES
def test_one_step_is_the_hand_formula(dtype: torch.dtype) -> None:
    x, y = data(dtype)
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    layer = linear(start)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3, weight_decay=0.01)
    loss = fit(layer, [[whole(x, y)]], cross_entropy, optimizer, CPU, Meter())
    # cross-entropy is taken in float32, whatever the network computes in
    close = {"rtol": 1e-5, "atol": 1e-6}
    expected = start - 0.3 * (slope(start, x, y) + 0.01 * start)
    assert torch.allclose(layer.weight.detach(), expected, **close)
    by_hand = -torch.log_softmax(x @ start.T, 1)[torch.arange(len(y)), y].mean()
    assert loss == pytest.approx(float(by_hand), rel=1e-5)


@DTYPES
def test_momentum_carries_over_steps(dtype: torch.dtype) -> None:
    x, y = data(dtype)
    start = torch.zeros(3, 4, dtype=dtype)
    layer = linear(start)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2, momentum=0.9)
    parts = [whole(x[:5], y[:5]), whole(x[5:], y[5:])]
    fit(layer, [parts, parts], cross_entropy, optimizer, CPU, Meter())
    weight, velocity = start, torch.zeros_like(start)
    for part in [*parts, *parts]:
        velocity = 0.9 * velocity + slope(weight, part.x, part.y)
        weight = weight - 0.2 * velocity
    assert torch.allclose(layer.weight.detach(), weight, rtol=1e-5, atol=1e-6)


def test_schedule_scales_each_step_and_the_rate_is_restored() -> None:
    x, y = data(torch.float32)
    layer = linear(torch.zeros(3, 4))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2)
    used: list[float] = []

    def objective(model: nn.Module, batch: Batch) -> Loss:
        used.append(optimizer.param_groups[0]["lr"])
        return cross_entropy(model, batch)

    batch = whole(x, y)
    fit(
        layer, [[batch, batch], [batch, batch]], objective, optimizer, CPU, Meter(),
        schedule=lambda step, steps: 1 / (step + steps), steps=4,
    )  # fmt: skip
    assert used == pytest.approx([0.2 / 4, 0.2 / 5, 0.2 / 6, 0.2 / 7])
    assert optimizer.param_groups[0]["lr"] == 0.2


def test_returns_the_mean_loss_over_the_examples_of_the_last_epoch() -> None:
    x, y = data(torch.float32)
    layer = linear(torch.zeros(3, 4))
    values = iter([torch.tensor(v, requires_grad=True) for v in (9.0, 9.0, 1.0, 4.0)])

    def objective(model: nn.Module, batch: Batch) -> Loss:
        return Loss(next(values), 1)

    parts = [whole(x[:8], y[:8]), whole(x[8:], y[8:])]
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    assert fit(layer, [parts, parts], objective, optimizer, CPU, Meter()) == pytest.approx(
        (8 * 1 + 4 * 4) / 12
    )


def test_counts_sample_gradients_and_reports_progress() -> None:
    source = examples()
    layer = linear(torch.zeros(3, 4))
    meter, shares = Meter(), list[float]()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    fit(
        layer, (source.batches(5) for _ in range(2)), cross_entropy, optimizer, CPU, meter,
        steps=6, progress=shares.append,
    )  # fmt: skip
    assert meter.sample_gradients == 24
    assert shares == pytest.approx([step / 6 for step in range(1, 7)])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_is_raised(bad: float) -> None:
    x, y = data(torch.float32)
    layer = linear(torch.zeros(3, 4)).eval()

    def objective(model: nn.Module, batch: Batch) -> Loss:
        return Loss(model(batch.x).sum() * 0 + bad, len(batch))

    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    expected = (
        rf"the training loss became {bad} in epoch 1 \(step 1\) at learning rate 0.5; lower the learning"
    )
    with pytest.raises(Diverged, match=expected):
        fit(layer, [[whole(x, y)]], objective, optimizer, CPU, Meter())
    assert not layer.training


def test_a_learning_rate_far_too_high_diverges() -> None:
    source = examples()
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e6)
    with pytest.raises(
        Diverged, match=r"the training loss became nan in epoch \d+ .* at learning rate 1e\+06"
    ):
        fit(net, (source.batches(4) for _ in range(20)), cross_entropy, optimizer, CPU, Meter())


def test_every_module_returns_to_its_own_mode() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    net[1].eval()
    seen: list[list[bool]] = []

    def objective(model: nn.Module, batch: Batch) -> Loss:
        seen.append([module.training for module in model.modules()])
        return cross_entropy(model, batch)

    x, y = data(torch.float32)
    fit(net, [[whole(x, y)]], objective, torch.optim.SGD(net.parameters(), lr=0.1), CPU, Meter())
    assert seen == [[True] * 4]
    assert [module.training for module in net.modules()] == [True, True, False, True]


def test_a_batch_of_one_is_normalised_by_running_statistics() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    x, y = data(torch.float32)
    lone = Batch(x[:1], y[:1], torch.arange(1))
    expected = nn.functional.cross_entropy(copy.deepcopy(net).eval()(x[:1]), y[:1])
    loss = fit(net, [[lone]], cross_entropy, torch.optim.SGD(net.parameters(), lr=0.1), CPU, Meter())
    assert loss == pytest.approx(float(expected))
    assert torch.equal(net[1].running_mean, torch.zeros(4))


def test_modes_return_after_an_error() -> None:
    net = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(ZeroDivisionError), training_mode(net):
        raise ZeroDivisionError
    assert not net[0].training


def test_predictions_are_in_order_and_in_evaluation_mode() -> None:
    source = examples()
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    logits = predict(net, source, CPU, batch_size=5)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    net.eval()
    for row in range(12):
        x = next(source.select(torch.tensor([row])).batches(1)).x
        assert torch.allclose(logits[row], net(x)[0], atol=1e-6)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_accuracy_counts_and_takes_nan_for_wrong() -> None:
    source = examples()

    def oracle(x: Tensor) -> Tensor:
        logits = nn.functional.one_hot(source.labels, 3).float()
        logits[0, 0] = math.nan
        logits[1] = -logits[1]
        logits[2] = math.nan
        return logits

    assert accuracy(oracle, source, CPU) == pytest.approx(9 / 12)


def test_measuring_keeps_no_graph() -> None:
    """Else the activations of every batch stay in memory until the last."""
    seen = []

    def model(x: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return torch.zeros(len(x), 3)

    accuracy(model, examples(9), CPU, batch_size=4)
    predict(model, examples(9), CPU, batch_size=4)
    assert seen == [False] * 6
