from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.models.resnet9 import ResNet9
from expunge.seeding import generator
from expunge.training.initialisation import reinitialise, shrink_and_perturb


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("make", [plain, lambda: ResNet9(1, 8, 3, width=4)])
def test_every_parameter_and_statistic_is_drawn_anew(make: type[nn.Module]) -> None:
    net = make()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(99)
    reinitialise(net, generator(1))
    assert not any(bool((tensor == 99).any()) for tensor in net.state_dict().values())


def test_frozen_layers_stay() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), Scale(), nn.Linear(3, 2))
    net(torch.randn(8, 3))
    for layer in (net[0], net[1], net[2]):
        layer.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    reinitialise(net, generator(5, "it"), keep_frozen=True)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"3.weight", "3.bias"}


def test_follows_its_generator_alone() -> None:
    nets = [plain() for _ in range(3)]
    before = torch.get_rng_state()
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        reinitialise(net, generator(seed))
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (net[0].weight for net in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_network_s_own_reset_is_used() -> None:
    net = ResNet9(1, 8, 3, width=4)
    reinitialise(net, generator(0))
    # torch draws biases of convolutions at random; this network sets them to zero
    assert not net.conv1.conv.bias.any()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Sequential(nn.Linear(3, 3), Scale()),
            r"Scale '1' owns parameters but has no reset_parameters\(\)",
        ),
        (Scale(), r"Scale '\(the model itself\)' owns parameters but has no reset_parameters"),
    ],
)
def test_module_that_cannot_be_reset(net: nn.Module, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        reinitialise(net, generator(0))


def trained(make: type[nn.Module]) -> nn.Module:
    """A network whose parameters and statistics are those of no initialisation."""
    net = make().double()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator(7)))
    return net


networks = pytest.mark.parametrize("make", [plain, lambda: ResNet9(1, 8, 3, width=4)])


@networks
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.5])
def test_shrink_and_perturb_mixes_with_a_fresh_initialisation(make: type[nn.Module], keep: float) -> None:
    net = trained(make)
    before, fresh = copy.deepcopy(net), copy.deepcopy(net)
    reinitialise(fresh, generator(3))
    shrink_and_perturb(net, keep, generator(3))
    for (name, ours), old, new in zip(
        net.named_parameters(), before.parameters(), fresh.parameters(), strict=True
    ):
        assert torch.allclose(ours, keep * old + (1 - keep) * new, rtol=0, atol=1e-15), name
        assert keep or torch.equal(ours, new)
    for (name, ours_), old_ in zip(net.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(ours_, old_), name


@networks
def test_to_keep_all_changes_and_draws_nothing(make: type[nn.Module]) -> None:
    net, source = trained(make), generator(3)
    before, state = copy.deepcopy(net.state_dict()), source.get_state()
    shrink_and_perturb(net, 1.0, source)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(source.get_state(), state)


def test_shrink_and_perturb_follows_its_generator_alone() -> None:
    net = trained(plain)
    nets = [copy.deepcopy(net) for _ in range(3)]
    before = torch.get_rng_state()
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        shrink_and_perturb(net, 0.5, generator(seed))
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (net[0].weight for net in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_what_cannot_be_reset_or_is_frozen_is_not_perturbed() -> None:
    net = nn.Sequential(nn.Linear(3, 3), Scale(), nn.Linear(3, 3), nn.Linear(3, 2))
    net[2].requires_grad_(False)
    before = copy.deepcopy(net)
    shrink_and_perturb(net, 0.5, generator(0))
    moved = [
        name
        for (name, ours), old in zip(net.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(ours, old)
    ]
    assert moved == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_gradients_can_flow_after_shrink_and_perturb() -> None:
    net = plain()
    weight = net[0].weight
    shrink_and_perturb(net, 0.5, generator(0))
    assert net[0].weight is weight
    assert weight.requires_grad
    assert weight.is_leaf


@pytest.mark.parametrize("keep", [-0.1, 1.5, float("nan")])
def test_share_to_keep_must_be_one(keep: float) -> None:
    with pytest.raises(InvalidInput, match=rf"keep is a share of the parameters in \[0, 1\], got {keep}"):
        shrink_and_perturb(plain(), keep, generator(0))


def test_shrink_and_perturb_leaves_embeddings() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    table, weight = model[0].weight.clone(), model[1].weight.clone()
    shrink_and_perturb(model, 0.5, generator(0, "loosen"))
    assert torch.equal(model[0].weight, table)
    assert not torch.equal(model[1].weight, weight)
