from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.capacity.route import Router
from expunge.errors import InvalidInput
from expunge.models.vit import STREAM, LocalSelfAttention, ShiftedPatches, SplitLayerNorm, ViT
from expunge.seeding import generator


def small(**settings: float) -> ViT:
    sizes = {"size": 16, "dim": 24, "heads": 4, "dim_head": 6, "mlp": 36, "depth": 2, "capacity": 0.5}
    return ViT(**{**sizes, **settings})


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts() -> None:
    assert count(ViT()) == 11_013_518
    half = ViT(capacity=0.5)
    assert count(half) == count(ViT(dim=256, heads=4, mlp=768))
    assert count(half.widen(1.0, generator(1))) == 11_013_518


def test_start_values() -> None:
    network = ViT(depth=2, mlp=64)
    for block in network.attention:
        assert block.temperature.item() == pytest.approx(math.log(64**-0.5))
    assert network.positions.shape == (17, 512)
    # 8704 draws: six standard errors of mean and standard deviation
    assert abs(network.positions.mean().item()) < 6 / math.sqrt(8704)
    assert abs(network.positions.std().item() - 1) < 6 / math.sqrt(2 * 8704)
    assert abs(network.class_token.std().item() - 1) < 6 / math.sqrt(2 * 512)


@pytest.mark.parametrize(("channels", "size", "patch"), [(1, 8, 2), (1, 28, 7), (3, 32, 8), (3, 64, 16)])
def test_forward_and_backward(channels: int, size: int, patch: int) -> None:
    narrow = small(channels=channels, size=size, n_classes=7)
    assert narrow.settings["patch"] == patch
    wide = narrow.widen(1.0, generator(1))
    x = torch.randn(4, channels, size, size)
    route = Router()(torch.arange(4), torch.tensor([True, False, True, False]))
    for logits in (narrow(x), wide(x), wide(x, route)):
        assert logits.shape == (4, 7)
        logits.square().mean().backward()
    for network in (narrow, wide):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("patch", [1, 4, 8])
def test_other_patches(patch: int) -> None:
    assert small(size=8, patch=patch)(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def slow_patches(image: Tensor, patch: int) -> Tensor:
    """The patches of one image (C, H, W), one value after the other."""
    channels, size, _ = image.shape
    rows = []
    for top in range(0, size, patch):
        for left in range(0, size, patch):
            values = []
            # a copy moved by (down, right) shows at (r, c) what the image has at (r - down, c - right)
            for down, right in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
                for channel in range(channels):
                    for r in range(top - down, top - down + patch):
                        for c in range(left - right, left - right + patch):
                            inside = 0 <= r < size and 0 <= c < size
                            values.append(float(image[channel, r, c]) if inside else 0.0)
            rows.append(values)
    return torch.tensor(rows, dtype=image.dtype)


def test_shifted_patches_equal_a_slow_loop() -> None:
    embed = ShiftedPatches(2, 3, (5, 0))
    torch.nn.init.normal_(embed.norm.weight)
    torch.nn.init.normal_(embed.norm.bias)
    x = torch.randn(2, 2, 6, 6)
    expected = torch.stack([slow_patches(image, 3) for image in x])
    assert torch.equal(embed.patches(x), expected)
    mean, variance = expected.mean(2, keepdim=True), expected.var(2, keepdim=True, unbiased=False)
    normal = (expected - mean) / (variance + 1e-5).sqrt() * embed.norm.weight + embed.norm.bias
    torch.testing.assert_close(embed(x), normal @ embed.linear.weight.T + embed.linear.bias)


def test_attention_equals_a_slow_loop() -> None:
    heads, dim_head, tokens = 3, 4, 5
    layer = LocalSelfAttention((7, 0), (heads, 0), dim_head, tokens, site=1).double()
    torch.nn.init.constant_(layer.temperature, 0.3)
    x = torch.randn(2, tokens, 7, dtype=torch.float64)
    expected = torch.zeros(2, tokens, 7, dtype=torch.float64)
    for b in range(2):
        normal = F.layer_norm(x[b], (7,), layer.norm.weight, layer.norm.bias)
        joined = torch.zeros(tokens, heads * dim_head, dtype=torch.float64)
        for head in range(heads):
            rows = slice(head * dim_head, (head + 1) * dim_head)
            q, k, v = (normal @ part.weight[rows].T for part in (layer.q, layer.k, layer.v))
            for t in range(tokens):
                others = [s for s in range(tokens) if s != t]
                scores = [math.exp((q[t] @ k[s]).item() * math.exp(0.3)) for s in others]
                for s, score in zip(others, scores, strict=True):
                    joined[t, rows] += score / sum(scores) * v[s]
        expected[b] = joined @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x), expected)


def test_temperature_learns() -> None:
    layer = LocalSelfAttention((7, 0), (3, 0), 4, 5, site=1).double()
    x = torch.randn(2, 5, 7, dtype=torch.float64)

    def loss(temperature: float) -> Tensor:
        torch.nn.init.constant_(layer.temperature, temperature)
        return layer(x).square().sum()

    loss(0.3).backward()
    slope = (loss(0.3 + 1e-6) - loss(0.3 - 1e-6)) / 2e-6
    assert layer.temperature.grad.item() == pytest.approx(slope.item(), rel=1e-5)


def test_network_written_out() -> None:
    network = small(capacity=1.0, depth=2).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    p = dict(network.named_parameters())

    def norm(h: Tensor, name: str) -> Tensor:
        h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return h * p[f"{name}.weight"] + p[f"{name}.bias"]

    h = norm(torch.stack([slow_patches(image, 4) for image in x]), "embed.norm")
    h = h @ p["embed.linear.weight"].T + p["embed.linear.bias"]
    h = torch.cat((p["class_token"].expand(3, 1, -1), h), dim=1) + p["positions"]
    for block in range(2):
        at, ff = f"attention.{block}", f"feed_forward.{block}"
        normal = norm(h, f"{at}.norm")
        q, k, v = ((normal @ p[f"{at}.{part}.weight"].T).view(3, 17, 4, 6).transpose(1, 2) for part in "qkv")
        scores = q @ k.transpose(2, 3) * p[f"{at}.temperature"].exp()
        scores = scores.masked_fill(torch.eye(17, dtype=torch.bool), -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(3, 17, 24)
        h = h + mixed @ p[f"{at}.out.weight"].T + p[f"{at}.out.bias"]
        hidden = norm(h, f"{ff}.norm") @ p[f"{ff}.up.weight"].T + p[f"{ff}.up.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        h = h + hidden @ p[f"{ff}.down.weight"].T + p[f"{ff}.down.bias"]
    logits = norm(h[:, 0], "norm") @ p["fc.weight"].T + p["fc.bias"]
    torch.testing.assert_close(network(x), logits)


def test_layer_norm_keeps_the_halves_apart() -> None:
    layer = SplitLayerNorm(4, 3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 7)
    base = F.layer_norm(x[..., :4], (4,), layer.weight[:4], layer.bias[:4])
    spare = F.layer_norm(x[..., 4:], (3,), layer.weight[4:], layer.bias[4:])
    assert torch.equal(layer(x, wide=True), torch.cat((base, spare), dim=-1))
    assert torch.equal(layer(x[..., :4]), base)
    other = torch.cat((x[..., :4], 50 + 9 * x[..., 4:]), dim=-1)
    assert torch.equal(layer(other, wide=True)[..., :4], base)
    assert torch.equal(SplitLayerNorm(4, 0)(x[..., :4], wide=True), F.layer_norm(x[..., :4], (4,)))


def test_routed_units_are_features_heads_and_hidden_units() -> None:
    wide = small().widen(0.5, generator(1))
    seen: list[tuple[int, int, int, int, int]] = []

    def record(x: Tensor, base: int, site: int, dim: int = 1) -> Tensor:
        seen.append((site, dim, x.ndim, base, x.shape[dim] - base))
        return x

    wide(torch.randn(2, 3, 16, 16), record)
    # (site, dimension, dimensions in all, base units, spare units); no place routes the 17 tokens
    assert sorted(set(seen)) == [
        (STREAM, 2, 3, 12, 6),
        (1, 1, 4, 2, 1),
        (2, 2, 3, 18, 9),
        (3, 1, 4, 2, 1),
        (4, 2, 3, 18, 9),
    ]


def disturb_feature(network: ViT, unit: int) -> None:
    """Change everything that writes to or reads from one embedding feature."""
    for name, parameter in network.named_parameters():
        if name.startswith("embed.norm"):
            continue
        writes = name.startswith(("embed.linear", "norm")) or any(
            part in name for part in (".norm.", ".out.", ".down.")
        )
        reads = name.endswith((".q.weight", ".k.weight", ".v.weight", ".up.weight", "fc.weight"))
        if writes:
            parameter[unit] += 3.0
        elif reads or name in ("class_token", "positions"):
            parameter[..., unit] += 3.0


def disturb_head(network: ViT, unit: int) -> None:
    layer = network.attention[0]
    rows = slice(unit * 6, unit * 6 + 6)
    for part in (layer.q, layer.k, layer.v):
        part.weight[rows] += 3.0
    layer.out.weight[:, rows] += 3.0


def disturb_hidden(network: ViT, unit: int) -> None:
    layer = network.feed_forward[0]
    layer.up.weight[unit] += 3.0
    layer.up.bias[unit] += 3.0
    layer.down.weight[:, unit] += 3.0


@pytest.mark.parametrize(
    ("disturb", "site", "base", "spare"),
    [(disturb_feature, STREAM, 12, 12), (disturb_head, 1, 2, 2), (disturb_hidden, 2, 18, 18)],
)
def test_closed_units_contribute_exactly_zero(
    disturb: Callable[[ViT, int], None], site: int, base: int, spare: int
) -> None:
    router = Router(p=0.5, seed=4)
    ids = torch.arange(60)
    opened = router(ids, torch.zeros(60, dtype=torch.bool)).mask(spare, site)
    # an example with both an open and a closed unit at this site
    example = int((opened.any(dim=1) & ~opened.all(dim=1)).nonzero()[0])
    route = router(torch.tensor([example]), torch.tensor([False]))
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        for unit, is_open in enumerate(opened[example].tolist()):
            network = small().eval().widen(1.0, generator(1))
            before, base_before = network(x, route), network(x)
            disturb(network, base + unit)
            assert torch.equal(network(x, route), before) == (not is_open)
            assert torch.equal(network(x), base_before)


def test_closed_units_get_exactly_zero_gradient() -> None:
    network = small().widen(1.0, generator(1))
    route = Router(p=0.4, seed=1)(torch.tensor([9, 9]), torch.tensor([False, False]))
    network(torch.randn(2, 3, 16, 16), route).square().sum().backward()
    features, heads, hidden = (
        torch.cat((torch.ones(base), route.mask(base, site)[0])).bool()
        for site, base in ((STREAM, 12), (1, 2), (2, 18))
    )
    layer, forward = network.attention[0], network.feed_forward[0]
    assert torch.equal(network.class_token.grad[0, 0] != 0, features)
    assert torch.equal(network.fc.weight.grad.any(dim=0), features)
    assert torch.equal(layer.q.weight.grad.any(dim=0), features)
    assert torch.equal(layer.out.bias.grad != 0, features)
    assert torch.equal(layer.v.weight.grad.any(dim=1).view(4, 6).any(dim=1), heads)
    assert torch.equal(layer.out.weight.grad.any(dim=0).view(4, 6).any(dim=1), heads)
    assert torch.equal(forward.up.bias.grad != 0, hidden)
    assert torch.equal(forward.down.weight.grad.any(dim=0), hidden)


def test_a_share_without_a_whole_spare_head() -> None:
    wide = small().widen(0.2, generator(1))  # 2 base heads: 0.4 of a head is none
    assert wide.attention[0].q.weight.shape == (12, 14)
    route = Router()(torch.arange(2), torch.tensor([True, False]))
    assert wide(torch.randn(2, 3, 16, 16), route).isfinite().all()


def test_runs_in_half_precision() -> None:
    torch.manual_seed(0)
    wide = small().eval().widen(1.0, generator(1))
    route = Router()(torch.arange(4), torch.zeros(4, dtype=torch.bool))
    x = torch.randn(4, 3, 16, 16, generator=generator(2))
    exact = wide(x, route)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(wide(x, route).float(), exact, rtol=0, atol=0.1)


def test_errors() -> None:
    with pytest.raises(
        InvalidInput, match=r"divides the image size, got patch 7 for 30x30 pixels; give patch="
    ):
        ViT(size=30)
    with pytest.raises(InvalidInput, match=r"got patch 5 for 32x32 pixels"):
        ViT(patch=5)
    with pytest.raises(InvalidInput, match=r"got patch 0 for 3x3 pixels"):
        ViT(size=3)
    for capacity in (0.0, -0.5, 1.1, math.nan):
        with pytest.raises(InvalidInput, match=rf"capacity in \(0, 1\].* got capacity {capacity}"):
            small(capacity=capacity)
    with pytest.raises(InvalidInput, match=r"at least one feature, head and hidden unit .* heads 1,"):
        small(heads=1)
    with pytest.raises(InvalidInput, match=r"spare >= 0.* spare -1.0"):
        small(spare=-1.0)
    with pytest.raises(InvalidInput, match=r"depth of at least 1.* depth 0"):
        small(depth=0)
    with pytest.raises(InvalidInput, match=r"made for images \(B, 3, 16, 16\), got \(2, 3, 17, 17\); resize"):
        small()(torch.randn(2, 3, 17, 17))
