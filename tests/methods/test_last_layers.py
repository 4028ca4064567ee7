from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.last_layers import CFk, EUk, layers_of
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.numerics import Numerics

FAST = {"lr": 0.1, "batch_size": 16, "epochs": 2}


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(5),
        nn.Linear(5, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False)),
        nn.Linear(6, 3),
    )


def request() -> Request:
    draw = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(40, 5, generator=draw)
    train = examples_from_dataset(torch.utils.data.TensorDataset(x, torch.arange(40) % 3), 3)
    return Request(Split(train, torch.arange(8)), seed=0, numerics=Numerics(channels_last=False))


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    """The first parts of the names that differ."""
    theirs = after.state_dict()
    return {
        name.rsplit(".", 1)[0]
        for name, value in before.state_dict().items()
        if not torch.equal(value, theirs[name])
    }


def test_normalisations_go_with_the_layer_before_them() -> None:
    names = [[name for name, _ in layer] for layer in layers_of(network())]
    assert names == [["0", "1", "2"], ["4.0", "4.1"], ["5"]]
    model = image_case().model
    assert [[name for name, _ in layer] for layer in layers_of(model)][-2:] == [
        ["conv4.conv", "conv4.norm"],
        ["fc"],
    ]
    assert len(layers_of(model)) == 9


@pytest.mark.parametrize("kind", [CFk, EUk])
@pytest.mark.parametrize(
    ("k", "moved"), [(1, {"5"}), (2, {"4.0", "4.1", "5"}), (3, {"0", "1", "2", "4.0", "4.1", "5"})]
)
def test_other_layers_stay_bit_for_bit_with_their_statistics(
    kind: type[CFk], k: int, moved: set[str]
) -> None:
    model = network()
    assert changed(model, kind(k=k, **FAST)(model, request()).model) == moved


@pytest.mark.parametrize("kind", [CFk, EUk])
def test_early_layers_normalise_by_their_running_statistics(kind: type[CFk]) -> None:
    """The last layer sees what it sees when the network is deployed: training it alone is a linear problem."""
    model = network()
    model(torch.randn(64, 5))  # gives the statistics values of their own
    method = kind(
        k=1,
        lr=0.1,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=64,
        epochs=1,
        schedule="constant",
        augment=False,
    )
    after = method(model, request()).model
    started = copy.deepcopy(model)
    method.prepare(layers_of(started)[-1:], request())
    started.eval()
    x = next(request().grant("x", kind.needs).retain.batches(64))
    features = started[:-1](x.x).detach()
    slope = ((started[-1](features).softmax(1) - torch.eye(3)[x.y]).T @ features / len(x)).detach()
    torch.testing.assert_close(after[-1].weight.detach(), started[-1].weight.detach() - 0.1 * slope)


def test_only_the_last_layers_are_drawn_anew() -> None:
    model = network()
    tiny = {"lr": 1e-12, "momentum": 0.0, "weight_decay": 0.0, "epochs": 1, "k": 2}
    kept = CFk(**tiny)(model, request()).model
    drawn = EUk(**tiny)(model, request()).model
    torch.testing.assert_close(kept[5].weight, model[5].weight)
    for place in (drawn[5].weight, drawn[5].bias):
        former = kept[5].get_parameter("weight" if place.ndim == 2 else "bias")
        assert float((place - former).detach().abs().mean()) > 0.05
    assert float((drawn[4][0].weight - model[4][0].weight).detach().abs().mean()) > 0.05
    assert torch.equal(drawn[1].weight, model[1].weight)
    other = Request(request()._split, seed=1, numerics=Numerics(channels_last=False))
    assert not torch.equal(EUk(**tiny)(model, other).model[5].weight, drawn[5].weight)


def test_frozen_parameters_stay_in_cf_and_are_trained_in_eu() -> None:
    model = network()
    model[5].bias.requires_grad_(False)
    assert torch.equal(CFk(k=1, **FAST)(model, request()).model[5].bias, model[5].bias)
    result = EUk(k=1, **FAST)(model, request()).model
    assert not torch.equal(result[5].bias, model[5].bias)
    assert not result[5].bias.requires_grad
    model[5].weight.requires_grad_(False)
    with pytest.raises(InvalidInput, match="no parameter requires a gradient"):
        CFk(k=1, **FAST)(model, request())


@pytest.mark.parametrize("kind", [CFk, EUk])
def test_more_layers_than_there_are_is_refused(kind: type[CFk]) -> None:
    with pytest.raises(InvalidInput, match=r"k = 4 .* Sequential has 3; choose k from 1 to 3"):
        kind(k=4)(network(), request())


@pytest.mark.parametrize("settings", [{"k": 0}, {"epochs": 0}])
def test_bad_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="must be positive"):
        CFk.configured(settings)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_a_layer_that_cannot_be_reset_is_refused_only_where_it_would_be() -> None:
    model = nn.Sequential(nn.Linear(5, 3), Scale(), nn.Linear(3, 3))
    with pytest.raises(InvalidInput, match="Scale '1' is among the last 2 layers"):
        EUk(k=2, **FAST)(model, request())
    EUk(k=1, **FAST)(model, request())
    CFk(k=2, **FAST)(model, request())
