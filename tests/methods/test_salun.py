from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.importance import saliency
from expunge.methods.relabelling import redraw_head
from expunge.methods.salun import SalUn, largest
from expunge.models.head import find_head
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.numerics import Numerics


def test_largest_is_global_and_exact() -> None:
    first, second = largest([torch.tensor([[1.0, 5.0]]), torch.tensor([3.0, 4.0])], 0.5)
    assert (first.tolist(), second.tolist()) == ([[False, True]], [False, True])
    (ties,) = largest([torch.zeros(10)], 0.3)
    assert ties.tolist() == [True] * 3 + [False] * 7


def test_saliency_is_the_gradient_of_the_mean_loss() -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(7) % 2
    split = Split(examples_from_dataset(TensorDataset(x, y), 2), torch.arange(5))
    request = Request(split, seed=0, numerics=Numerics(channels_last=False)).grant("salun", SalUn.needs)
    model = nn.Linear(3, 2)
    found = saliency(model, request.forget, request.numerics, request.meter, batch_size=2)
    assert request.meter.sample_gradients == 5
    nn.functional.cross_entropy(model(x[:5]), y[:5]).backward()  # type: ignore[no-untyped-call]
    for ours, parameter in zip(found.values(), model.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(ours, parameter.grad.abs(), atol=1e-6)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_entries_outside_the_mask_stay_bit_for_bit(optimiser: str) -> None:
    case = image_case()
    method = SalUn(keep=0.1, lr=0.01, batch_size=32, epochs=2, weight_decay=0.5, optimiser=optimiser)
    granted = case.request(method).grant(method.name, method.needs)
    slopes = saliency(case.model, granted.forget, granted.numerics, granted.meter, batch_size=32)
    masks = largest(list(slopes.values()), 0.1)
    result = method(case.model, case.request(method)).model
    entries = moved = 0
    for before, after, mask in zip(case.model.parameters(), result.parameters(), masks, strict=True):
        assert torch.equal(before[~mask], after[~mask])
        entries += mask.numel()
        moved += int((before != after).sum())
    assert 0.09 * entries < moved <= round(0.1 * entries)


def test_keep_outside_its_range_is_refused() -> None:
    for keep in (0.0, 1.5):
        with pytest.raises(InvalidInput, match="keep must lie in"):
            SalUn(keep=keep)


def test_a_head_drawn_anew_is_trained_whole() -> None:
    case = image_case()
    method = SalUn(batch_size=32, lr=0.01, epochs=1, keep=0.001, reinit_head=True, weight_decay=0.0)
    drawn = copy.deepcopy(case.model)
    request = case.request(method)
    with torch.no_grad():
        redraw_head(find_head(drawn, 6), request.generator("head"))
    result = method(case.model, request).model
    assert bool((find_head(result, 6).weight != find_head(drawn, 6).weight).float().mean() > 0.9)
