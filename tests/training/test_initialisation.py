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


def back(make: type[nn.Module] = plain) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A trained network, and the weights it began from."""
    return trained(make), {name: tensor.detach().double() for name, tensor in make().named_parameters()}


@networks
@pytest.mark.parametrize("keep", [0.0, 0.3])
def test_weights_go_back_to_those_of_the_start(make: type[nn.Module], keep: float) -> None:
    net, start = back(make)
    old = copy.deepcopy(dict(net.named_parameters()))
    buffers = copy.deepcopy(dict(net.named_buffers()))
    shrink_and_perturb(net, keep, generator(3), start)
    for name, ours in net.named_parameters():
        assert torch.allclose(ours, keep * old[name] + (1 - keep) * start[name], rtol=0, atol=1e-15), name
        assert keep or torch.equal(ours, start[name])
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in net.named_buffers())


def test_what_the_start_does_not_have_is_drawn() -> None:
    net, start = back()
    del start["4.weight"], start["4.bias"]
    fresh = copy.deepcopy(net)
    reinitialise(fresh, generator(3))
    shrink_and_perturb(net, 0.0, generator(3), start)
    assert torch.equal(net[0].weight, start["0.weight"])
    assert torch.equal(net[4].weight, fresh[4].weight)


def test_a_head_for_other_classes_is_skipped() -> None:
    net, start = back()
    fresh = copy.deepcopy(net)
    reinitialise(fresh, generator(3))
    start |= {"4.weight": torch.ones(1000, 8), "4.bias": torch.ones(1000)}
    shrink_and_perturb(net, 0.0, generator(3), start)
    assert torch.equal(net[0].weight, start["0.weight"])
    assert torch.equal(net[4].weight, fresh[4].weight)


def test_embeddings_and_norms_go_back_where_the_start_has_them() -> None:
    net = nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    start = {name: torch.full_like(tensor, 2.0) for name, tensor in net.named_parameters()}
    shrink_and_perturb(net, 0.0, generator(0), start)
    assert all(bool((parameter == 2).all()) for parameter in net.parameters())


def test_frozen_parameters_do_not_go_back() -> None:
    net, start = back()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    shrink_and_perturb(net, 0.0, generator(0), start)
    assert torch.equal(net[0].weight, before)
    assert torch.equal(net[4].weight, start["4.weight"])


@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_a_start_that_does_not_fit_is_an_error(keep: float) -> None:
    net, start = back()
    wrong = start | {"0.weight": torch.ones(2, 1, 5, 5)}
    with pytest.raises(
        InvalidInput, match=r"'0.weight' of shape \(2, 1, 5, 5\) and the model has \(2, 1, 3, 3\); give the"
    ):
        shrink_and_perturb(net, keep, generator(0), wrong)
    with pytest.raises(
        InvalidInput, match=r"none of the 1 names .*such as 'backbone.w'; the model has '0.weight'"
    ):
        shrink_and_perturb(net, keep, generator(0), {"backbone.w": torch.ones(3)})
