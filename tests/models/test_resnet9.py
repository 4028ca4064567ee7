from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.capacity.route import Router
from expunge.errors import InvalidInput
from expunge.models.resnet9 import ResNet9
from expunge.seeding import generator

IMAGES = pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 11), (1, 12), (1, 28), (3, 32), (3, 64)])


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts() -> None:
    assert count(ResNet9(capacity=1.0)) == 2_276_224
    assert count(ResNet9(capacity=0.5)) == 940_032
    assert count(ResNet9(capacity=0.5, spare=1.0)) == 2_276_224
    assert count(ResNet9(capacity=0.5).widen(1.0, generator(1))) == 2_276_224


def test_split_hidden_halves_every_stage() -> None:
    # An ordinary network of half the width, so no layer is left at full width.
    assert count(ResNet9(capacity=0.5, split_hidden=True)) == count(ResNet9(width=32, capacity=1.0))


@IMAGES
def test_forward_and_backward(channels: int, size: int) -> None:
    narrow = ResNet9(channels, size, n_classes=7, width=8)
    wide = narrow.widen(1.0, generator(1))
    x = torch.randn(4, channels, size, size)
    route = Router()(torch.arange(4), torch.tensor([True, False, True, False]))
    for logits in (narrow(x), wide(x), wide(x, route)):
        assert logits.shape == (4, 7)
        logits.square().mean().backward()
    for network in (narrow, wide):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_base_path_equals_the_network_written_out() -> None:
    network = ResNet9(size=16, width=8, capacity=1.0).double().train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    weights = dict(network.named_parameters())

    def unit(x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], stride, padding)
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        x = (x - mean) / (variance + 1e-5).sqrt()
        x = x * weights[f"{name}.norm.weight"].view(1, -1, 1, 1) + weights[f"{name}.norm.bias"].view(
            1, -1, 1, 1
        )
        return torch.where(x > 0, x, 0.075 * torch.expm1(x.clamp(max=0) / 0.075))

    h = unit(unit(x, "conv1"), "conv2", 2, 2)
    h = h + unit(unit(h, "res1.0"), "res1.1")
    h = F.max_pool2d(unit(h, "conv3"), 2)
    h = h + unit(unit(h, "res2.0"), "res2.1")
    h = unit(h, "conv4", 1, 0).flatten(2).max(dim=2).values
    torch.testing.assert_close(network(x), h @ weights["fc.weight"].T)


@pytest.mark.parametrize("split_hidden", [False, True])
def test_every_place_has_a_site_of_its_own(split_hidden: bool) -> None:
    wide = ResNet9(size=16, width=8, split_hidden=split_hidden).widen(1.0, generator(1))
    seen: list[tuple[int, int, int]] = []

    def record(x: Tensor, base: int, site: int, dim: int = 1) -> Tensor:
        seen.append((site, base, x.shape[dim] - base))
        return x

    wide(torch.randn(2, 3, 16, 16), record)
    expected = [(0, 4, 4), (1, 8, 8), (2, 8, 8), (3, 16, 16), (4, 16, 16), (5, 8, 8)]
    if split_hidden:
        expected += [(6, 8, 8), (7, 16, 16)]
    assert sorted(seen) == expected


def test_zero_momentum_leaves_statistics() -> None:
    network = ResNet9(size=8, width=8).train()
    wide = network.widen(1.0, generator(1))
    for module in wide.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    before = {name: tensor.clone() for name, tensor in wide.named_buffers() if "running" in name}
    x = torch.randn(4, 3, 8, 8)
    wide(x)
    wide(x, Router()(torch.arange(4), torch.zeros(4, dtype=torch.bool)))
    after = dict(wide.named_buffers())
    assert len(before) == 16
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_errors() -> None:
    with pytest.raises(InvalidInput, match=r"at least 8x8 pixels, got 7x7; enlarge them"):
        ResNet9(size=7)
    for capacity in (0.0, -0.5, 1.1):
        with pytest.raises(InvalidInput, match=rf"capacity in \(0, 1\].* capacity {capacity}"):
            ResNet9(capacity=capacity)
    with pytest.raises(InvalidInput, match=r"at least one channel .* got width 1, capacity 0.5"):
        ResNet9(width=1)
    with pytest.raises(InvalidInput, match=r"spare >= 0, .* spare -1.0"):
        ResNet9(spare=-1.0)
