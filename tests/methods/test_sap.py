from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Request
from expunge.methods.sap import SAP, patches, scaled_projection
from expunge.seeding import global_generator
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def by_svd(activations: Tensor, alpha: float) -> Tensor:
    """The formula of the paper, one direction after the other."""
    directions, values, _ = torch.linalg.svd(activations.double(), full_matrices=False)
    total = float(values.square().sum())
    found = torch.zeros(len(activations), len(activations), dtype=torch.float64)
    for i, value in enumerate(values.tolist()):
        share = value**2 / total
        found += alpha * share / ((alpha - 1) * share + 1) * torch.outer(directions[:, i], directions[:, i])
    return found


@pytest.mark.parametrize("alpha", [1.0, 30.0, 1e5])
def test_projection_equals_the_singular_value_decomposition(alpha: float) -> None:
    activations = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    found = scaled_projection(activations.double() @ activations.double().T, alpha)
    assert torch.allclose(found, by_svd(activations, alpha), atol=1e-9)


def test_a_direction_nobody_trusted_has_is_removed_and_a_large_alpha_keeps_the_others() -> None:
    activations = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)).double()
    activations[3] = 0
    found = scaled_projection(activations @ activations.T, 1e12)
    assert torch.allclose(found, torch.diag(torch.tensor([1.0, 1, 1, 0, 1]).double()), atol=1e-6)
    assert not scaled_projection(torch.zeros(4, 4), 10.0).any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Conv2d(2, 4, (3, 2), stride=2, padding=(0, 2), dilation=(1, 2)),
        nn.Conv2d(2, 4, (4, 3), padding="same"),
        nn.Conv2d(2, 4, 3, padding="valid"),
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
    ],
    ids=str,
)
def test_patches_are_what_a_convolution_multiplies(layer: nn.Conv2d) -> None:
    x = torch.randn(3, 2, 7, 8, generator=torch.Generator().manual_seed(0))
    made = patches(layer, x) @ layer.weight.flatten(1).T + layer.bias
    assert torch.allclose(made, layer(x).permute(0, 2, 3, 1).reshape(-1, 4), atol=1e-5)


def test_weights_are_projected_by_the_surest_half() -> None:
    draw = torch.Generator().manual_seed(0)
    train = in_memory(torch.randn(30, 4, generator=draw), torch.arange(30) % 3, 3)
    with global_generator(draw):
        model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    request = Request(Split(train, torch.arange(6)), seed=0, numerics=CPU)
    result = SAP(alpha=50.0, trusted=8)(model, request).model
    x, y = train.source.fetch(torch.arange(6, 30), None), train.labels[6:]
    with torch.no_grad():
        losses = F.cross_entropy(model(x), y, reduction="none")
        chosen = x[losses.argsort()[:8]]
        hidden = model[1](model[0](chosen))
        for layer, inputs in ((0, chosen), (2, hidden)):
            expected = model[layer].weight.double() @ by_svd(inputs.T, 50.0)
            assert torch.allclose(result[layer].weight.double(), expected, atol=1e-5)
            assert torch.equal(result[layer].bias, model[layer].bias)


def test_reads_the_retain_set_alone_and_trusts_half_of_it_at_the_most() -> None:
    assert SAP.needs == Needs.RETAIN
    case = image_case()
    outcome = SAP()(case.model, case.request(SAP()))
    assert outcome.log[0]["trusted"] == len(case.split.retain) // 2
    assert outcome.cost.sample_gradients == 0


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match=r"alpha must be at least 1 and finite, got 0\.5"):
        SAP(alpha=0.5)
    train = in_memory(torch.randn(4, 2), torch.arange(4) % 2, 2)
    with pytest.raises(InvalidInput, match="half of the retain set at the most, got 1 examples"):
        SAP()(nn.Linear(2, 2), Request(Split(train, torch.arange(3)), seed=0, numerics=CPU))
    grouped = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Flatten())
    images = in_memory(torch.randn(6, 2, 1, 1), torch.arange(6) % 2, 2)
    with pytest.raises(InvalidInput, match="whose weights could be projected"):
        SAP()(grouped, Request(Split(images, torch.arange(3)), seed=0, numerics=CPU))
