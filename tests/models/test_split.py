from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.capacity.route import Router
from expunge.errors import InvalidInput
from expunge.models.resnet9 import ResNet9
from expunge.models.split import SplitBatchNorm2d, SplitConv2d, SplitLinear, SplitNetwork
from expunge.models.vit import ViT
from expunge.seeding import generator, global_generator

Maker = Callable[[], SplitNetwork]


def resnet() -> SplitNetwork:
    return ResNet9(size=16, width=12)


def resnet_split_inside() -> SplitNetwork:
    return ResNet9(size=16, width=12, split_hidden=True)


def vit() -> SplitNetwork:
    return ViT(size=16, dim=24, heads=4, dim_head=6, mlp=36, depth=2, capacity=0.5)


def vit_odd_widths() -> SplitNetwork:
    return ViT(size=16, dim=25, heads=3, dim_head=5, mlp=37, depth=2, capacity=0.7)


NETWORKS = pytest.mark.parametrize("make", [resnet, resnet_split_inside, vit, vit_odd_widths])


def seeded(make: Maker, *roles: str) -> SplitNetwork:
    with global_generator(generator(3, *roles)):
        return make()


def images(batch: int, size: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=generator(5, batch, size))


def corner_of(small: Tensor) -> tuple[slice, ...]:
    return tuple(slice(side) for side in small.shape)


def all_closed(x: Tensor, base: int, site: int, dim: int = 1) -> Tensor:
    opened = x.new_zeros([x.shape[dim] if d == dim else 1 for d in range(x.ndim)])
    opened.narrow(dim, 0, base).fill_(1.0)
    return x * opened


class TestLayers:
    def test_convolution_uses_the_corner(self) -> None:
        layer = SplitConv2d((2, 3), (4, 1), 3, stride=2, padding=1)
        x = torch.randn(2, 5, 7, 7)
        assert layer.bias is not None
        expected = F.conv2d(x[:, :2], layer.weight[:4, :2], layer.bias[:4], 2, 1)
        assert torch.equal(layer(x[:, :2]), expected)
        assert torch.equal(layer(x, wide=True), F.conv2d(x, layer.weight, layer.bias, 2, 1))

    @pytest.mark.parametrize("bias", [True, False])
    def test_linear_uses_the_corner(self, bias: bool) -> None:
        layer = SplitLinear((2, 3), (4, 1), bias=bias)
        x = torch.randn(6, 5)
        expected = x[:, :2] @ layer.weight[:4, :2].T + (layer.bias[:4] if bias else 0)
        torch.testing.assert_close(layer(x[:, :2]), expected)
        assert layer(x, wide=True).shape == (6, 5)

    @pytest.mark.parametrize("batch", [1, 2, 3, 16])
    def test_linear_corner_is_bit_for_bit_a_layer_of_its_own(self, batch: int) -> None:
        # A matrix library may sum a strided weight in another order than a dense one.
        for base in (7, 28, 32, 256):
            layer = SplitLinear((base, base), (10, 3))
            x = torch.randn(batch, base)
            alone = F.linear(x, layer.weight[:10, :base].clone(), layer.bias[:10].clone())
            assert torch.equal(layer(x), alone)

    @pytest.mark.parametrize("momentum", [0.1, 0.0, None])
    @pytest.mark.parametrize("training", [True, False])
    def test_batch_norm_base_is_a_layer_of_its_own(self, momentum: float | None, training: bool) -> None:
        split, alone = SplitBatchNorm2d(3, 2).train(training), nn.BatchNorm2d(3).train(training)
        split.momentum = momentum  # None averages
        alone.momentum = momentum
        nn.init.normal_(split.weight)
        nn.init.normal_(split.bias)
        with torch.no_grad():
            alone.weight.copy_(split.weight[:3])
            alone.bias.copy_(split.bias[:3])
        for step in range(3):
            x = torch.randn(4, 3, 5, 5) + step
            assert torch.equal(split(x), alone(x))
        for name in ("running_mean", "running_var"):
            assert torch.equal(getattr(split, name)[:3], getattr(alone, name))
        assert torch.equal(split.running_mean[3:], torch.zeros(2))
        assert torch.equal(split.running_var[3:], torch.ones(2))
        assert split.num_batches_tracked == alone.num_batches_tracked == (3 if training else 0)
        moved = training and momentum != 0.0
        assert bool((alone.running_mean != 0).any()) == moved

    @pytest.mark.parametrize("wide", [True, False])
    def test_batch_norm_momentum_zero_leaves_statistics(self, wide: bool) -> None:
        layer = SplitBatchNorm2d(3, 2).train()
        layer.momentum = 0.0
        layer(torch.randn(4, 5 if wide else 3, 5, 5) * 9 + 4, wide)
        assert torch.equal(layer.running_mean, torch.zeros(5))
        assert torch.equal(layer.running_var, torch.ones(5))

    def test_batch_norm_wide_moves_every_statistic(self) -> None:
        layer = SplitBatchNorm2d(3, 2).train()
        layer(torch.randn(4, 5, 5, 5) + 4, wide=True)
        assert (layer.running_mean > 0.3).all()


class TestBasePath:
    @NETWORKS
    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("batch", [1, 2, 5])
    def test_equals_narrow_network_bit_for_bit(self, make: Maker, training: bool, batch: int) -> None:
        narrow = seeded(make).train(training)
        wide = narrow.widen(0.7, generator(1, "spare"))
        assert wide.training == training
        for _ in range(2):
            x = images(batch)
            assert torch.equal(wide(x), narrow(x))
        theirs = wide.state_dict()
        for name, tensor in narrow.state_dict().items():
            assert torch.equal(theirs[name][corner_of(tensor)], tensor), name

    @NETWORKS
    def test_widening_adds_only_outside_the_corner(self, make: Maker) -> None:
        narrow = seeded(make)
        one, two = (narrow.widen(1.0, generator(1, seed)) for seed in ("one", "two"))
        small = narrow.state_dict()
        differing = 0
        for name, tensor in one.state_dict().items():
            other = two.state_dict()[name]
            corner = corner_of(small[name])
            assert torch.equal(tensor[corner], other[corner])
            differing += int((tensor != other).sum())
        added = sum(p.numel() for p in one.parameters()) - sum(p.numel() for p in narrow.parameters())
        # Normalisation starts at 1 and 0 whatever the draw (and the convolutions' biases at 0).
        assert 0.8 * added < differing <= added

    @NETWORKS
    def test_widen_then_narrow_is_exact(self, make: Maker) -> None:
        narrow = seeded(make).train()
        narrow(images(4))  # running statistics off their start
        back = narrow.widen(1.0, generator(1)).narrow()
        assert back.settings == narrow.settings
        before, after = narrow.state_dict(), back.state_dict()
        assert list(before) == list(after)
        for name, tensor in before.items():
            assert torch.equal(tensor, after[name]), name
            assert tensor.data_ptr() != after[name].data_ptr()

    @NETWORKS
    def test_loss_reaches_the_base_alone(self, make: Maker) -> None:
        narrow = seeded(make).train()
        wide = narrow.widen(0.7, generator(1))
        x, labels = images(3), torch.tensor([0, 4, 9])
        for network in (narrow, wide):
            F.cross_entropy(network(x), labels).backward()
        small = dict(narrow.named_parameters())
        spare = 0
        for name, parameter in wide.named_parameters():
            gradient, expected = parameter.grad, small[name].grad
            assert gradient is not None
            assert expected is not None
            corner = corner_of(expected)
            assert torch.equal(gradient[corner], expected), name
            outside = gradient.clone()
            outside[corner] = 0
            assert not outside.any(), name
            spare += gradient.numel() - expected.numel()
        assert spare > 0
        weight = next(p for p in narrow.parameters() if p.ndim > 1).grad
        assert weight is not None
        assert weight.any()

    @NETWORKS
    def test_wide_loss_reaches_spare_units(self, make: Maker) -> None:
        wide = seeded(make).widen(1.0, generator(1)).train()
        route = Router(p=0.5)(torch.arange(8), torch.zeros(8, dtype=torch.bool))
        F.cross_entropy(wide(images(8), route), torch.arange(8)).backward()
        narrow = dict(wide.narrow().named_parameters())
        for name, parameter in wide.named_parameters():
            assert parameter.grad is not None
            if parameter.shape != narrow[name].shape:
                outside = parameter.grad.clone()
                outside[corner_of(narrow[name])] = 0
                # A bias in front of a batch normalisation in train mode has no effect at all.
                assert outside.any() or name.endswith("conv.bias"), name


class TestWidePath:
    @NETWORKS
    def test_everything_closed_is_the_base_path(self, make: Maker) -> None:
        narrow = seeded(make).train()
        narrow(images(6))
        wide = narrow.eval().widen(1.0, generator(1))
        x = images(4)
        torch.testing.assert_close(wide(x, all_closed), wide(x), rtol=0, atol=1e-6)

    @NETWORKS
    def test_everything_closed_in_double_precision(self, make: Maker) -> None:
        wide = seeded(make).eval().widen(1.0, generator(1)).double()
        x = images(4).double()
        assert wide(x).dtype == torch.float64
        torch.testing.assert_close(wide(x, all_closed), wide(x), rtol=0, atol=1e-13)

    @NETWORKS
    def test_masks_of_other_examples_do_not_matter(self, make: Maker) -> None:
        wide = seeded(make).eval().widen(1.0, generator(1))
        x, shared = images(3), torch.zeros(3, dtype=torch.bool)
        router = Router(p=0.5)
        one = wide(x, router(torch.tensor([1, 2, 3]), shared))
        two = wide(x, router(torch.tensor([1, 2, 77]), shared))
        assert torch.equal(one[:2], two[:2])
        assert (one[2] - two[2]).abs().max() > 1e-4


class TestErrors:
    @NETWORKS
    @pytest.mark.parametrize("spare", [0.0, -1.0])
    def test_widen_needs_spare_units(self, make: Maker, spare: float) -> None:
        with pytest.raises(InvalidInput, match=rf"spare must be above 0 .*, got {spare}"):
            make().widen(spare, generator(1))

    @NETWORKS
    def test_widen_twice(self, make: Maker) -> None:
        with pytest.raises(InvalidInput, match=r"already has spare units; call narrow\(\) first"):
            make().widen(1.0, generator(1)).widen(1.0, generator(1))

    @NETWORKS
    def test_route_on_a_narrow_network(self, make: Maker) -> None:
        with pytest.raises(InvalidInput, match=r"has no spare units to route through; call widen\(\) first"):
            make()(images(2), all_closed)

    def test_unfinished_subclass(self) -> None:
        class Empty(SplitNetwork):
            pass

        with pytest.raises(NotImplementedError, match="Empty does not define forward"):
            Empty()(images(1))


class TestDraws:
    @NETWORKS
    def test_same_seed_same_network(self, make: Maker) -> None:
        one, two, other = seeded(make, "a"), seeded(make, "a"), seeded(make, "b")
        for (name, first), second in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(first, second), name
        assert any(not torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))

    @NETWORKS
    def test_widening_leaves_the_global_state(self, make: Maker) -> None:
        network = make()
        before = torch.random.get_rng_state()
        network.widen(1.0, generator(1)).narrow()
        assert torch.equal(torch.random.get_rng_state(), before)

    @NETWORKS
    def test_reset_leaves_nothing_behind(self, make: Maker) -> None:
        one, two = make().train(), make()
        one(images(4))
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.fill_(7.0)
        for network in (one, two):
            with global_generator(generator(1, "reset")):
                network.reset_parameters()
        for (name, first), second in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(first, second), name

    @NETWORKS
    def test_saved_and_loaded(self, make: Maker, tmp_path: Path) -> None:
        network = make().widen(1.0, generator(1)).eval()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        again = type(network)(**network.settings).eval()
        again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        assert torch.equal(again(images(2)), network(images(2)))
