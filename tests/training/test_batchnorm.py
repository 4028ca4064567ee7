from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples
from expunge.data.mapped import examples_from_dataset
from expunge.models.resnet9 import ResNet9
from expunge.seeding import generator
from expunge.training.batchnorm import (
    batch_norms,
    forget_statistics,
    momentum,
    recalibrate,
    running_statistics,
)
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def images(count: int) -> Tensor:
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(1)) * 3 + 2


def examples(count: int) -> Examples:
    data = torch.utils.data.TensorDataset(images(count), torch.zeros(count, dtype=torch.int64))
    return examples_from_dataset(data, n_classes=2)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2)
    )


def unbiased(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1).var(1)


def test_one_batch_gives_the_statistics_of_the_data() -> None:
    net, x = network(), images(24)
    recalibrate(net, examples(24), CPU, generator=generator(0))
    norm = net[0]
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, unbiased(x), rtol=1e-5)
    # the deeper layer sees what the first, normalising by the same batch, hands on
    scale = (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    inner = net[1]((x - x.mean((0, 2, 3), keepdim=True)) / scale)
    assert torch.allclose(net[2].running_mean, inner.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(net[2].running_var, unbiased(inner), rtol=1e-4)


def test_equal_batches_average_to_the_mean_of_all_data() -> None:
    net, x = network(), images(24)
    recalibrate(net, examples(24), CPU, batch_size=8, generator=generator(5))
    order = torch.randperm(24, generator=generator(5))
    assert torch.allclose(net[0].running_mean, x.mean((0, 2, 3)), atol=1e-5)
    within = torch.stack([unbiased(x[chunk]) for chunk in order.split(8)]).mean(0)
    assert torch.allclose(net[0].running_var, within, rtol=1e-5)


def test_small_last_batch_is_left_out_and_batches_are_limited() -> None:
    order, x = torch.randperm(26, generator=generator(5)), images(26)
    for limit, used in ((20, 24), (2, 16)):
        net = network()
        recalibrate(net, examples(26), CPU, batch_size=8, max_batches=limit, generator=generator(5))
        assert torch.allclose(net[0].running_mean, x[order[:used]].mean((0, 2, 3)), atol=1e-5)


def test_recalibration_leaves_all_else_as_it_was() -> None:
    net = network().eval()
    net[0].momentum = 0.3
    net[2].num_batches_tracked.fill_(17)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    recalibrate(net, examples(24), CPU, generator=generator(0))
    changed = [name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["0.running_mean", "0.running_var", "2.running_mean", "2.running_var"]
    assert net[0].momentum == 0.3
    assert not any(module.training for module in net.modules())


class Held(nn.Sequential):
    """Keeps its first norm in evaluation mode, whatever it is told."""

    def train(self, mode: bool = True) -> Held:
        super().train(mode)
        self[0].eval()
        return self


def test_norms_that_the_network_keeps_in_evaluation_mode_stay() -> None:
    net = Held(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    net[0].running_mean += 1
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    recalibrate(net, examples(24), CPU, generator=generator(0))
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"2.running_mean", "2.running_var"}


def test_one_example_leaves_the_statistics() -> None:
    net = network()
    before = net[0].running_mean.clone()
    recalibrate(net, examples(1), CPU, generator=generator(0))
    assert torch.equal(net[0].running_mean, before)


def test_no_normalisation_is_no_error() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(50, 2))
    before = net[1].weight.clone()
    recalibrate(net, examples(4), CPU, generator=generator(0))
    assert torch.equal(net[1].weight, before)


@pytest.mark.parametrize("wide", [False, True])
def test_momentum_zero_keeps_the_statistics_still(wide: bool) -> None:
    net: nn.Module = ResNet9(1, 8, 2, width=4, spare=1.0) if wide else network()
    x = torch.randn(6, 1, 8, 8) if wide else images(6)
    before = [norm.running_mean.clone() for norm in batch_norms(net)]
    with momentum(net, 0.0):
        net.train()(x)
    assert all(
        torch.equal(norm.running_mean, old) for norm, old in zip(batch_norms(net), before, strict=True)
    )
    assert all(norm.momentum == 0.1 for norm in batch_norms(net))
    net(x)
    assert not torch.equal(batch_norms(net)[0].running_mean, before[0])


def test_momentum_returns_after_an_error() -> None:
    net = network()
    with momentum(net, None):
        assert net[0].momentum is None
    with pytest.raises(ZeroDivisionError), momentum(net, None):
        raise ZeroDivisionError
    assert net[0].momentum == 0.1


def test_running_statistics_normalise_and_stay() -> None:
    net, x = network().train(), images(6)
    net[2].eval()
    with torch.no_grad():
        net[0].running_mean.fill_(2.0)
        net[0].running_var.fill_(9.0)
    with running_statistics(net):
        normalised = net[0](x)
        assert net.training
    assert torch.allclose(normalised, (x - 2) / (9 + 1e-5) ** 0.5, atol=1e-5)
    assert net[0].running_mean.tolist() == [2.0, 2.0]
    assert [net[0].training, net[2].training] == [True, False]
    with pytest.raises(ZeroDivisionError), running_statistics(net):
        raise ZeroDivisionError
    assert net[0].training


def test_only_norms_that_track_are_found() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False), nn.GroupNorm(1, 2))
    assert batch_norms(net) == [net[0]]


def test_the_forget_set_is_normalised_by_the_batch_and_a_lone_example_by_running_statistics() -> None:
    norm = nn.BatchNorm1d(3).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.randn(8, 3, generator=generator(0)) * 4 + 1

    def run(count: int) -> Tensor:
        rows = Batch(x[:count], torch.zeros(count, dtype=torch.int64), torch.arange(count))
        with forget_statistics(norm, rows):
            return norm(rows.x).detach()

    before = norm.running_mean.clone()
    torch.testing.assert_close(run(1), (x[:1] - before) / (1 + 1e-5) ** 0.5)
    assert torch.equal(norm.running_mean, before)
    torch.testing.assert_close(run(8), (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * x.mean(0))
    assert norm.training
