from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput, UndeclaredNeed
from expunge.methods.base import Request
from expunge.methods.logit_mask import LogitMask
from expunge.models.resnet9 import ResNet9
from expunge.seeding import generator, global_generator
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

CPU = Numerics(channels_last=False)


def request(positions: Tensor | tuple[int, ...], n_classes: int = 5) -> Request:
    """Forget whole classes, or the positions of a tensor."""
    labels = torch.arange(2 * n_classes) % n_classes
    train = examples_from_dataset(TensorDataset(torch.zeros(2 * n_classes, 1), labels), n_classes)
    if isinstance(positions, tuple):
        positions = torch.isin(labels, torch.tensor(positions)).nonzero().flatten()
    return Request(Split(train, positions), seed=0, numerics=CPU, recipe=Recipe())


def model_with(bias: bool) -> nn.Module:
    with global_generator(generator(0, "mask")):
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5, bias=bias))


def inputs() -> Tensor:
    return 3 * torch.randn(2000, 4, generator=generator(0, "inputs"))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("classes", [(0,), (4,), (1, 2), (0, 2, 4)])
def test_forgotten_classes_are_never_answered_and_the_others_as_before(
    bias: bool, classes: tuple[int, ...]
) -> None:
    model, x = model_with(bias), inputs()
    before = copy.deepcopy(model.state_dict())
    outcome = LogitMask()(model, request(classes))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        logits = model(x)
        masked = outcome.model(x)
    kept = [label for label in range(5) if label not in classes]
    assert bool((logits.argmax(1)[:, None] == torch.tensor(classes)).any())
    # logits of the others bit for bit, so their order is untouched
    assert torch.equal(masked[:, kept], logits[:, kept])
    assert torch.equal(masked.argmax(1), torch.tensor(kept)[logits[:, kept].argmax(1)])
    assert torch.equal(outcome.model[0].weight, model[0].weight)
    assert all(bool(tensor.isfinite().all()) for tensor in outcome.model.state_dict().values())
    again = LogitMask()(model, request(classes)).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in outcome.model.state_dict().items())


def test_without_a_bias_the_logit_is_the_mean_of_the_others() -> None:
    result = LogitMask()(model_with(False), request((1, 3))).model
    with torch.no_grad():
        logits = result(inputs())
    for label in (1, 3):
        torch.testing.assert_close(logits[:, label], logits[:, [0, 2, 4]].mean(1))


def test_modes_freezing_and_statistics_stay() -> None:
    with global_generator(generator(0)):
        model = ResNet9(1, 8, 5, width=4).train()
    model.fc.requires_grad_(False)
    result = LogitMask()(model, request((2,))).model
    assert all(module.training for module in result.modules())
    assert not result.fc.weight.requires_grad
    before = model.state_dict()
    changed = [name for name, tensor in result.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["fc.weight"]


def test_one_class_that_remains_needs_a_bias() -> None:
    assert set(LogitMask()(model_with(True), request((0, 1, 2, 4))).model(inputs()).argmax(1).tolist()) == {3}
    with pytest.raises(InvalidInput, match="a head without bias cannot be made to answer the one remaining"):
        LogitMask()(model_with(False), request((0, 1, 2, 4)))


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match=r"needs what .*: a forget set that is every .* would do: .*npo"):
        LogitMask()(model_with(True), request(torch.tensor([0])))
    with pytest.raises(InvalidInput, match="all of the 5 classes are to be forgotten"):
        LogitMask()(model_with(True), request((0, 1, 2, 3, 4)))
    with pytest.raises(InvalidInput, match="no linear layer with 5 outputs"):
        LogitMask()(nn.Linear(4, 3), request((0,)))
    granted = request((0,)).grant("logit_mask", LogitMask.needs)
    for read in ("forget", "retain", "train", "recipe", "truth", "codes", "unseen"):
        with pytest.raises(UndeclaredNeed, match="declares only 'classes'"):
            getattr(granted, read)
