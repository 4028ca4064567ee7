from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from expunge.capacity.route import Router
from expunge.errors import InvalidInput
from expunge.models.convnet import ConvNet
from expunge.seeding import generator

IMAGES = pytest.mark.parametrize(("channels", "size"), [(1, 4), (1, 8), (1, 9), (3, 32)])


def test_parameter_counts() -> None:
    def count(**settings: float) -> int:
        return sum(parameter.numel() for parameter in ConvNet(**settings).parameters())  # type: ignore[arg-type]

    # 3x3 kernels, biases, two of the normalisation for each channel, the head
    half = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 3 * (32 + 64 + 128) + 128 * 10 + 10
    assert count() == half
    assert count(spare=1.0) == count(capacity=1.0) == count(width=128)


@IMAGES
def test_forward_and_backward(channels: int, size: int) -> None:
    narrow = ConvNet(channels, size, n_classes=7, width=8)
    wide = narrow.widen(1.0, generator(1))
    x = torch.randn(4, channels, size, size)
    route = Router()(torch.arange(4), torch.tensor([True, False, True, False]))
    assert torch.equal(narrow(x), wide(x)), "the base path depends on the spare units"
    for logits in (narrow(x), wide(x), wide(x, route)):
        assert logits.shape == (4, 7)
        logits.square().mean().backward()
    for network in (narrow, wide):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_base_path_equals_the_network_written_out() -> None:
    network = ConvNet(width=8, capacity=1.0).double().train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    h = x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    for number, layer in enumerate(network.layers):
        h = F.conv2d(h, layer.conv.weight, layer.conv.bias, padding=1)
        mean = h.mean(dim=(0, 2, 3), keepdim=True)
        variance = h.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        h = (h - mean) / (variance + 1e-5).sqrt()
        h = h * layer.norm.weight.view(1, -1, 1, 1) + layer.norm.bias.view(1, -1, 1, 1)
        h = h.clamp(min=0)
        if number == 1:
            h = h.unflatten(2, (4, 2)).unflatten(4, (4, 2)).amax(dim=(3, 5))
    expected = h.flatten(2).mean(dim=2) @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(x), expected)


def test_every_layer_has_a_site_of_its_own() -> None:
    wide = ConvNet(width=8).widen(1.0, generator(1))
    seen: list[tuple[int, int, int]] = []

    def record(x: torch.Tensor, base: int, site: int, dim: int = 1) -> torch.Tensor:
        seen.append((site, base, x.shape[dim] - base))
        return x

    wide(torch.randn(2, 1, 8, 8), record)
    assert seen == [(0, 4, 4), (1, 8, 8), (2, 16, 16)]


def test_errors() -> None:
    with pytest.raises(InvalidInput, match=r"at least 4x4 pixels, got 3x3; enlarge them"):
        ConvNet(size=3)
    with pytest.raises(InvalidInput, match=r"ConvNet needs capacity in \(0, 1\].* capacity 1.1"):
        ConvNet(capacity=1.1)
    with pytest.raises(InvalidInput, match=r"at least one channel .* got width 1, capacity 0.5"):
        ConvNet(width=1)
    with pytest.raises(InvalidInput, match=r"spare >= 0, .* spare -1.0"):
        ConvNet(spare=-1.0)
