from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.models.mlp import MLP
from expunge.seeding import generator, global_generator


def test_paper_size() -> None:
    assert sum(parameter.numel() for parameter in MLP().parameters()) == 795_010


@pytest.mark.parametrize(
    ("activation", "function"), [("sigmoid", torch.sigmoid), ("relu", torch.relu), ("tanh", torch.tanh)]
)
def test_logits_by_hand(activation: str, function: Any) -> None:
    model = MLP(3, 5, 4, hidden=7, activation=activation)
    x = torch.randn(6, 3, 5, 5, generator=generator(0))
    inner = function(x.reshape(6, 75) @ model.hidden.weight.T + model.hidden.bias)
    torch.testing.assert_close(model(x), inner @ model.head.weight.T + model.head.bias)


def test_channels_last_gives_the_same() -> None:
    model, x = MLP(3, 5, 4, hidden=7), torch.randn(6, 3, 5, 5, generator=generator(0))
    assert torch.equal(model(x.to(memory_format=torch.channels_last)), model(x))


def test_reset_draws_anew_and_follows_the_seed() -> None:
    model = MLP(1, 4, 3, hidden=5)
    states = []
    for seed in (1, 1, 2):
        with global_generator(generator(seed)):
            model.reset_parameters()
        states.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    assert torch.equal(states[0], states[1])
    assert bool((states[0] != states[2]).all())


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="activation must be one of sigmoid, relu, tanh, got 'gelu'"):
        MLP(activation="gelu")
    with pytest.raises(InvalidInput, match=r"at least one channel, .* hidden 0"):
        MLP(hidden=0)
