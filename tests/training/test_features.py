from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.models.resnet9 import ResNet9
from expunge.models.vit import ViT
from expunge.training.features import features, layer_features, layer_names
from expunge.training.numerics import Numerics

NUMERICS = Numerics(channels_last=False)


def images(count: int = 5, channels: int = 1) -> Examples:
    return in_memory(torch.randn(count, channels, 8, 8), torch.arange(count) % 3, 3)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 3))
        self.unused = nn.Linear(2, 2)
        self.twice = nn.Linear(3, 3)
        self.pair = Pair()
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).amax(dim=(2, 3))
        x = self.pair(self.twice(self.twice(x)))[0]
        logits: Tensor = self.head(x)
        return logits


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_feature_maps_are_pooled_to_a_grid() -> None:
    model, given = Small().train(), images()
    found = layer_features(model, given, NUMERICS, ["body.0", "body.3", "head"])
    model.eval()
    x = next(given.batches(5)).x
    first = model.body[0](x)  # 6 x 6
    assert torch.allclose(found["body.0"], F.adaptive_avg_pool2d(first, 4).flatten(1))
    assert torch.allclose(found["body.3"], model.body(x).flatten(1))  # 4 x 4
    assert torch.allclose(found["head"], model(x))
    assert not any(module._forward_hooks for module in model.modules())


def test_evaluation_mode_inside_and_the_former_one_afterwards() -> None:
    model = Small().train()
    before = model.body[1].running_mean.clone()
    layer_features(model, images(), NUMERICS, ["body.1"])
    assert model.training
    assert torch.equal(model.body[1].running_mean, before)


def test_the_last_part_agrees_with_what_enters_the_head() -> None:
    given = images()
    model = ResNet9(channels=1, size=8, n_classes=3, width=8)
    names = layer_names(model, 3)
    assert names == ["conv1", "conv2", "res1.0", "res1.1", "conv3", "res2.0", "res2.1", "conv4"]
    last = layer_features(model, given, NUMERICS, names)["conv4"].reshape(5, 8, -1).amax(2)
    assert torch.allclose(last, features(model, given, NUMERICS), atol=1e-6)


def test_tokens_are_averaged() -> None:
    model = ViT(channels=1, size=8, n_classes=3, patch=4, dim=8, depth=1, heads=2)
    given = images()
    found = layer_features(model, given, NUMERICS, layer_names(model, 3))
    assert {len(feature) for feature in found.values()} == {5}
    assert {feature.ndim for feature in found.values()} == {2}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("bodi", "Small has no layer 'bodi'; it has body, body.0"),
        ("unused", "layer 'unused' does not run once for each example"),
        ("twice", "layer 'twice' does not run once for each example"),
        ("pair", "layer 'pair' puts out tuple"),
    ],
)
def test_layers_that_cannot_be_read(layer: str, message: str) -> None:
    model = Small()
    with pytest.raises(InvalidInput, match=message):
        layer_features(model, images(), NUMERICS, [layer])
    assert not any(module._forward_hooks for module in model.modules())


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="features of no examples"):
        layer_features(Small(), images(0), NUMERICS, ["body"])
    with pytest.raises(InvalidInput, match="no layer with parameters before its head"):
        layer_names(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 3)
    with pytest.raises(InvalidInput, match="no linear layer with 7 outputs"):
        layer_names(Small(), 7)
