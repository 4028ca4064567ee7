from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.capacity.branches import Branched, add_capacity, check_branches
from expunge.capacity.route import Router
from expunge.errors import InvalidInput
from expunge.methods.rem_attached import AttachedREM
from expunge.models.resnet9 import ResNet9
from expunge.models.split import SplitNetwork
from expunge.models.vit import ViT
from expunge.seeding import generator, global_generator


class Closed:
    """A route with every unit shut; it notes the places it is asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def __call__(self, x: Tensor, base: int, site: int, dim: int = 1) -> Tensor:
        self.asked.append((base, site, dim))
        return torch.zeros_like(x)


class TokenMixer(nn.Module):
    """Linear layers over tokens (B, T, features), then a head on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 10)
        self.mix = nn.Linear(10, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.mix(self.embed(x).relu()).mean(1))
        return logits


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, dilation=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 3, padding="same"),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 3))


CASES: dict[str, tuple[Any, tuple[int, ...], list[str], int]] = {
    # maker, shape of the input, layers with a branch, dimension of the units
    "convolutional": (convolutional, (5, 2, 9, 9), ["0", "4"], 1),
    "dense": (dense, (5, 7), ["0"], 1),
    "tokens": (TokenMixer, (5, 4, 6), ["embed", "mix"], 2),
}


def build(name: str) -> tuple[nn.Module, Tensor, list[str], int]:
    make, shape, layers, dim = CASES[name]
    draw = generator(0, name)
    with global_generator(draw):
        model = make().eval()
    return model, torch.randn(shape, generator=draw), layers, dim


def route(p: float = 0.5) -> Any:
    return Router(p, seed=1)(torch.arange(5), torch.zeros(5, dtype=torch.bool))


everywhere = pytest.mark.parametrize("name", CASES)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@everywhere
def test_base_path_is_the_model_bit_for_bit_before_and_after_routing(name: str) -> None:
    model, x, layers, _ = build(name)
    expected = model(x)
    network = Branched(model, 1.0, generator(1)).eval()
    assert torch.equal(network(x), expected)
    wide = network(x, route())
    assert hooks(network) == 0
    assert torch.equal(network(x), expected)
    assert not torch.allclose(wide, expected)
    assert len(network.branches) == len(layers)
    assert network.narrow() is model


@everywhere
def test_closed_masks_give_the_base_path(name: str) -> None:
    model, x, layers, dim = build(name)
    network, closed = Branched(model, 1.0, generator(1)).eval(), Closed()
    assert torch.equal(network(x, closed), model(x))
    # branches have no base part; each has a site of its own
    assert closed.asked == [(0, site, dim) for site in range(len(layers))]


@everywhere
def test_masks_belong_to_examples(name: str) -> None:
    model, x, _, _ = build(name)
    network = Branched(model, 1.0, generator(1)).eval()
    together = network(x, route())
    for i in range(5):
        own = Router(0.5, seed=1)(torch.tensor([i]), torch.tensor([False]))
        assert torch.allclose(together[i], network(x[i : i + 1], own)[0], atol=1e-5)


@everywhere
def test_closed_units_get_no_gradient(name: str) -> None:
    model, x, _, _ = build(name)
    network = Branched(model, 1.0, generator(1)).eval()
    shared = Router(0.5, seed=1)(torch.arange(5), torch.ones(5, dtype=torch.bool))
    network(x, shared).square().sum().backward()
    for site, branch in enumerate(network.branches):
        opened = shared.mask(branch.units, site)[0]
        assert 0 < int(opened.sum()) < branch.units
        used = branch.up.weight.grad.transpose(0, 1).flatten(1).abs().sum(1)
        assert not used[~opened].any()
        assert used[opened].any()


@everywhere
def test_copies_share_nothing(name: str) -> None:
    model, x, _, _ = build(name)
    network = Branched(model, 1.0, generator(1)).eval()
    base, wide = network(x), network(x, route())
    other = copy.deepcopy(network)
    assert torch.equal(other(x, route()), wide)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert torch.equal(network(x), base)
    assert torch.equal(network(x, route()), wide)
    assert not torch.allclose(other(x, route()), wide)


@pytest.mark.parametrize(("spare", "units"), [(1.0, [6, 4]), (0.5, [3, 2]), (2.0, [12, 8]), (0.01, [1, 1])])
def test_number_of_units(spare: float, units: list[int]) -> None:
    network = Branched(convolutional(), spare, generator(0))
    assert [branch.units for branch in network.branches] == units


def test_default_branches_add_at_most_a_quarter_of_the_parameters() -> None:
    perceptron = nn.Sequential(nn.Linear(40, 80), nn.ReLU(), nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 3))
    for model in (perceptron, ResNet9(width=32), ViT(dim=64, heads=4, dim_head=16, mlp=128)):
        before = sum(parameter.numel() for parameter in model.parameters())
        network = Branched(model, AttachedREM().width, generator(0))
        assert sum(parameter.numel() for parameter in network.parameters()) <= 1.25 * before


def test_a_branch_beside_a_linear_layer_has_its_share_of_the_weights() -> None:
    network = Branched(nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 3)), 0.5, generator(0))
    assert [branch.units for branch in network.branches] == [12]
    assert 12 * (60 + 40) == 0.5 * 60 * 40


def test_initial_values_follow_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (
        Branched(dense(), 1.0, generator(seed)).branches[0].down.weight for seed in (1, 1, 2)
    )
    torch.set_rng_state(before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_hooks_are_gone_after_an_error() -> None:
    network = Branched(dense(), 1.0, generator(0))
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, 6), route())
    assert hooks(network) == 0


def test_hooks_of_others_stay() -> None:
    model, x, _, _ = build("dense")
    seen: list[int] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    network = Branched(model, 1.0, generator(0))
    network(x, route())
    network(x)
    assert len(seen) == 2
    assert hooks(network) == 1


def test_branches_take_on_the_type_of_the_network() -> None:
    model, x, _, _ = build("dense")
    network = Branched(model.double(), 1.0, generator(0))
    assert network(x.double(), route()).dtype == torch.float64


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)),
    ],
)
def test_no_layer_to_attach_to(model: nn.Module) -> None:
    expected = (
        "Sequential has no Conv2d, and no Linear beside its head, .* choose a method that adds none, such as"
    )
    with pytest.raises(InvalidInput, match=expected):
        Branched(model, 1.0, generator(0))


def test_a_convolutional_head_alone_is_enough() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.randn(5, 2, 6, 6)
    network = Branched(model, 1.0, generator(0)).eval()
    assert torch.equal(network(x), model(x))
    assert not torch.allclose(network(x, route()), model(x))


def test_capacity_is_spare_units_where_the_network_can_be_widened() -> None:
    narrow = ResNet9(1, 8, 3, width=4)
    wide = add_capacity(narrow, 0.5, generator(0))
    assert isinstance(wide, SplitNetwork)
    assert wide.spare == 0.5
    assert add_capacity(wide, 1.0, generator(0)) is wide
    assert isinstance(add_capacity(dense(), 1.0, generator(0)), Branched)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((), ["embed", "mix"]),
        (("mix",), ["mix"]),
        (("m*", "embed"), ["embed", "mix"]),
        (("?ix", "mix"), ["mix"]),
        (["[em]*"], ["embed", "mix"]),
    ],
)
def test_layers_by_name_or_pattern(layers: Sequence[str], expected: list[str]) -> None:
    model, x, _, _ = build("tokens")
    network = Branched(model, 1.0, generator(1), layers).eval()
    called: list[int] = []
    for site, branch in enumerate(network.branches):
        branch.register_forward_pre_hook(lambda *_, site=site: called.append(site))
    network(x, route())
    assert called == list(range(len(expected)))
    assert [branch.down.in_features for branch in network.branches] == [
        model.get_submodule(name).in_features for name in expected
    ]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "embedd",
            r"no layer of TokenMixer that can have a branch is called 'embedd'; did you mean 'embed'\? "
            r"\(there are: embed, mix\)",
        ),
        ("head", r"is called 'head'.* \(there are: embed, mix\)"),
        ("Mix", r"is called 'Mix'; did you mean 'mix'"),
        ("encoder.*", r"is called 'encoder\.\*' \(there are: embed, mix\)"),
    ],
)
def test_layers_that_are_not_there(pattern: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Branched(TokenMixer(), 1.0, generator(0), ["mix", pattern])


class Attention(nn.Module):
    """Self-attention of torch's, then two linear layers."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.inner = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.attention(x, x, x)
        logits: Tensor = self.head(self.inner(x).mean(1))
        return logits


def test_linear_layers_inside_torch_s_attention_are_left_out() -> None:
    model, x = Attention().eval(), torch.randn(5, 4, 8)
    assert isinstance(model.attention.out_proj, nn.Linear)
    network = Branched(model, 1.0, generator(0)).eval()
    assert [branch.down.in_features for branch in network.branches] == [8]
    assert torch.equal(network(x), model(x))
    assert not torch.allclose(network(x, route()), model(x))
    with pytest.raises(InvalidInput, match=r"'attention\.out_proj'.* \(there are: inner\)"):
        Branched(model, 1.0, generator(0), ["attention.out_proj"])


def test_attention_alone_has_no_place() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 3))
    with pytest.raises(InvalidInput, match="no Linear beside its head"):
        Branched(model, 1.0, generator(0))


class FlatTokens(nn.Module):
    """Tokens (B, T, 6) flattened to (B * T, 6) for its inner layer, ``drop`` of them left out."""

    def __init__(self, drop: int = 0) -> None:
        super().__init__()
        self.drop = drop
        self.inner = nn.Linear(6, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        hidden = self.inner(flat[self.drop :]).relu()
        hidden = torch.cat([hidden.new_zeros(self.drop, 10), hidden])
        logits: Tensor = self.head(hidden.unflatten(0, x.shape[:2]).mean(1))
        return logits


def test_flattened_tokens_get_their_example_s_mask() -> None:
    model, x = FlatTokens().eval(), torch.randn(5, 4, 6)
    network = Branched(model, 1.0, generator(1)).eval()
    together = network(x, route())
    for i in range(5):
        own = Router(0.5, seed=1)(torch.tensor([i]), torch.tensor([False]))
        assert torch.allclose(together[i], network(x[i : i + 1], own)[0], atol=1e-5)


def test_rows_that_belong_to_no_example_are_refused_with_the_layer_s_name() -> None:
    network = Branched(FlatTokens(drop=3), 1.0, generator(1))
    x = torch.randn(5, 4, 6)
    network(x)
    with pytest.raises(InvalidInput, match="at layer 'inner': a layer was given 17 rows for a batch of 5"):
        network(x, route())
    assert hooks(network) == 0


class ByKeyword(nn.Module):
    """Its layers are called with their input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(input=self.inner(input=x))
        return logits


def test_layers_called_by_keyword() -> None:
    network = Branched(ByKeyword(), 1.0, generator(0)).eval()
    x = torch.randn(5, 7)
    expected = network.model.head(network.model.inner(x) + network.branches[0](x, route(), 0))
    assert torch.equal(network(x, route()), expected)


class TimeFirst(nn.Module):
    """Linear layers over (T, B, features), or over its rows laid out one time after the other."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.mix, self.head, self.flat = nn.Linear(6, 10), nn.Linear(10, 3), flat

    def forward(self, x: Tensor) -> Tensor:
        steps = x.transpose(0, 1)
        mixed = self.mix(steps.flatten(0, 1)).unflatten(0, steps.shape[:2]) if self.flat else self.mix(steps)
        logits: Tensor = self.head(mixed.relu().mean(0))
        return logits


@pytest.mark.parametrize("length", [2, 3, 6])
def test_time_first_is_found_by_batches_of_two_and_three(length: int) -> None:
    for flat in (True, False):
        with pytest.raises(InvalidInput, match="'mix' of TimeFirst is not given one example after the other"):
            check_branches(TimeFirst(flat), torch.randn(3, length, 6))
    check_branches(TokenMixer(), torch.randn(3, length, 6))
    check_branches(TokenMixer(), torch.randn(1, length, 6))


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_attached_to(name: str) -> None:
    make, shape, _, _ = CASES[name]
    model = make().train()
    before = copy.deepcopy(model.state_dict())
    check_branches(model, torch.randn(shape))
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_network_with_spare_units_of_its_own_is_refused() -> None:
    wide = ResNet9(1, 8, 3, width=2).widen(1.0, torch.Generator())
    with pytest.raises(InvalidInput, match="neurons cannot be attached to ResNet9"):
        check_branches(wide, torch.randn(2, 1, 8, 8))


def test_frozen_layers_have_no_branch() -> None:
    model = nn.Sequential(nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    assert Branched(model, 1.0, generator(0))._names == ["2"]
    with pytest.raises(InvalidInput, match="no Linear beside its head"):
        Branched(model.requires_grad_(False), 1.0, generator(0))
