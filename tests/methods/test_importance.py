from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.importance import (
    Importances,
    dampen,
    fisher_importances,
    label_free_importances,
    trainable,
)
from expunge.models.resnet9 import ResNet9
from expunge.seeding import generator
from expunge.testing.method_contract import convolutional_case
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def examples(count: int = 20) -> Examples:
    return convolutional_case().split.train.select(torch.arange(count))


def slow(
    model: nn.Module,
    data: Examples,
    batch_size: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    power: int,
) -> Importances:
    """Mean over batches of |gradient|^power, by backward()."""
    model.eval()
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    batches = list(data.batches(batch_size))
    for batch in batches:
        model.zero_grad()
        loss(model(batch.x), batch.y).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            found[name] += parameter.grad.abs() ** power / len(batches)
    model.zero_grad(set_to_none=True)
    return found


def norms(logits: Tensor) -> Tensor:
    return torch.stack([(row**2).sum().sqrt() for row in logits])


LOSSES: dict[str, tuple[Callable[..., Importances], Callable[[Tensor, Tensor], Tensor], int, dict[str, bool]]] = {
    "fisher": (fisher_importances, nn.functional.cross_entropy, 2, {}),
    "norm": (label_free_importances, lambda logits, y: norms(logits).mean(), 1, {}),
    "squared norm": (
        label_free_importances, lambda logits, y: (norms(logits) ** 2).mean(), 1, {"squared": True}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("batch_size", [1, 8, 20])
def test_equal_a_slow_loop(kind: str, batch_size: int) -> None:
    importances, loss, power, settings = LOSSES[kind]
    model, meter = convolutional_case().fresh().requires_grad_(), Meter()
    found = importances(model, examples(), CPU, meter, batch_size=batch_size, **settings)
    expected = slow(model, examples(), batch_size, loss, power)
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-9)
    assert meter.sample_gradients == 20


def test_model_is_left_alone_and_frozen_parameters_are_left_out() -> None:
    model = convolutional_case().fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    found = fisher_importances(model, examples(), CPU, Meter(), batch_size=8)
    assert "0.weight" not in found
    assert set(found) == set(trainable(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labels_matter_only_where_they_should() -> None:
    model, data = convolutional_case().fresh(), examples()
    other = data.relabel((data.labels + 1) % 4)
    for kind, same in (("fisher", False), ("norm", True)):
        first, second = (LOSSES[kind][0](model, each, CPU, Meter(), batch_size=8) for each in (data, other))
        assert all(torch.equal(first[name], second[name]) for name in first) is same


def test_spare_units_matter_to_nobody() -> None:
    model = ResNet9(channels=1, size=8, n_classes=4, width=8).widen(1.0, generator(0))
    found = label_free_importances(model, examples(), CPU, Meter(), batch_size=8)
    assert not found["conv1.conv.weight"][4:].any()
    assert found["conv1.conv.weight"][:4].any()


def test_order_shuffles_and_progress_ends_at_one() -> None:
    model, shares = convolutional_case().fresh(), list[float]()
    plain = fisher_importances(model, examples(), CPU, Meter(), batch_size=8, progress=shares.append)
    shuffled = fisher_importances(model, examples(), CPU, Meter(), batch_size=8, order=generator(0))
    again = fisher_importances(model, examples(), CPU, Meter(), batch_size=8, order=generator(0))
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    assert not torch.equal(plain["6.weight"], shuffled["6.weight"])
    assert torch.equal(again["6.weight"], shuffled["6.weight"])


def test_nothing_to_measure() -> None:
    with pytest.raises(InvalidInput, match="importances are not defined over no examples"):
        fisher_importances(nn.Linear(2, 2), examples(0), CPU, Meter(), batch_size=8)
    with pytest.raises(InvalidInput, match="no parameter requires a gradient; unfreeze what may be changed"):
        fisher_importances(nn.Linear(2, 2).requires_grad_(False), examples(), CPU, Meter(), batch_size=8)


def test_dampen() -> None:
    layer = nn.Linear(5, 1, bias=False)
    nn.init.ones_(layer.weight)
    forget = {"weight": torch.tensor([[8.0, 2.0, 1.0, 0.0, 4.0]])}
    reference = {"weight": torch.tensor([[2.0, 1.0, 1.0, 0.0, 0.0]])}
    # Selected: 8 > 2 * 2 and 4 > 0; a tie (2 = 2 * 1) and 0 of 0 are not.
    assert dampen(layer, forget, reference, threshold=2.0) == pytest.approx(2 / 5)
    assert layer.weight.tolist() == [[0.25, 1.0, 1.0, 1.0, 0.0]]
    nn.init.ones_(layer.weight)
    dampen(layer, forget, reference, threshold=0.5, strength=1.5)
    assert layer.weight.tolist() == [[0.375, 0.75, 1.0, 1.0, 0.0]]


def test_a_smaller_last_batch_counts_as_a_batch() -> None:
    whole = examples_from_dataset(torch.utils.data.TensorDataset(torch.eye(3), torch.arange(3)), 3)
    layer = nn.Linear(3, 3)
    found = fisher_importances(layer, whole, CPU, Meter(), batch_size=2)
    expected = slow(layer, whole, 2, nn.functional.cross_entropy, 2)
    torch.testing.assert_close(found, expected)
