from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.models.resnet9 import ResNet9
from expunge.seeding import generator
from expunge.training.initialisation import reinitialise


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
