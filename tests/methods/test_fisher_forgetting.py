from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.fisher_forgetting import FisherForgetting, diagonal_fisher
from expunge.methods.importance import Importances
from expunge.models.resnet9 import ResNet9
from expunge.models.vit import ViT
from expunge.tasks.base import Split
from expunge.testing.method_contract import convolutional_case, image_case, vector_case
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def slow_fisher(model: nn.Module, examples: Examples) -> Importances:
    """One backward pass for every example and class."""
    model.eval()
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in examples.batches(1):
        for label in range(examples.n_classes):
            model.zero_grad()
            log_p = model(batch.x).log_softmax(1)[0, label]
            log_p.backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    found[name] += log_p.detach().exp() * parameter.grad**2 / len(examples)
    return found


def networks() -> list[tuple[nn.Module, Examples]]:
    small = convolutional_case().split.train.select(torch.arange(5))
    shape = {"channels": 1, "size": 8, "n_classes": 4}
    return [
        (convolutional_case().fresh(), small),
        (vector_case().fresh(), vector_case().split.train.select(torch.arange(5))),
        (ResNet9(**shape, width=4, spare=1.0), small),
        (ViT(**shape, dim=8, heads=2, dim_head=4, mlp=8, depth=1), small),
    ]


@pytest.mark.parametrize("number", range(4))
def test_diagonal_equals_a_loop_over_examples_and_classes(number: int) -> None:
    model, examples = networks()[number]
    model.train()
    before, meter = {name: t.clone() for name, t in model.state_dict().items()}, Meter()
    found = diagonal_fisher(model, examples, CPU, meter)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert meter.sample_gradients == 5 * 4
    expected = slow_fisher(model, examples)
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-8)


def test_two_parameters_by_hand() -> None:
    layer = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(layer.weight)
    train = examples_from_dataset(torch.utils.data.TensorDataset(torch.tensor([[2.0]]), torch.zeros(1)), 2)
    # p = (1/2, 1/2); the gradient of log p_0 is x (1/2, -1/2): a quarter of x^2.
    assert diagonal_fisher(layer, train, CPU, Meter())["weight"].tolist() == [[1.0], [1.0]]


def test_variance_of_a_parameter() -> None:
    method = FisherForgetting(alpha=2.0, clamp=100.0, head_clamp=10.0, boost=3.0)
    fisher = torch.tensor([[0.02, 0.04], [0.0, 0.5]])
    assert method.variance(fisher, last=False).tolist() == [
        pytest.approx([75.0, 75.0]), pytest.approx([102.0, 102.0])
    ]  # fmt: skip
    last = method.variance(fisher, last=True).tolist()
    assert last == [pytest.approx([60.0, 60.0]), pytest.approx([36.0, 36.0])]
    assert method.variance(fisher[0], last=False).tolist() == pytest.approx([300.0, 150.0])
    assert method.variance(fisher[0], last=True).tolist() == pytest.approx([60.0, 60.0])
    plain = FisherForgetting(alpha=2.0, clamp=100.0, head_clamp=10.0, boost=3.0, average_inputs=False)
    assert plain.variance(fisher, last=False)[0].tolist() == pytest.approx([100.0, 50.0])
    kernel = torch.rand(4, 3, 2, 2) + 0.1
    averaged = method.variance(kernel, last=False)
    assert averaged.shape == kernel.shape
    torch.testing.assert_close(averaged[:, 0], 2 * (1 / kernel).clamp(max=100).mean(1))


def linear(n_classes: int = 4, width: int = 1000) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, n_classes))


def test_noise_has_the_variance_that_is_asked_for() -> None:
    case, model = vector_case(), linear()
    method = FisherForgetting(alpha=1e-5, average_inputs=False)
    fisher = diagonal_fisher(model, case.split.retain, CPU, Meter())
    result = method(model, case.request(method)).model
    for number, last in ((0, False), (2, True)):
        for kind in ("weight", "bias"):
            name = f"{number}.{kind}"
            noise = result.get_parameter(name).detach() - model.get_parameter(name).detach()
            shown = noise / method.variance(fisher[name], last=last).sqrt()
            if shown.numel() >= 1000:
                assert float(shown.mean()) == pytest.approx(0.0, abs=0.15)
                assert float(shown.var()) == pytest.approx(1.0, abs=0.2)


def test_another_seed_draws_other_noise() -> None:
    case, method = vector_case(), FisherForgetting(max_examples=4)
    first, second = (method(case.fresh(), case.request(method, seed)).model for seed in (0, 1))
    assert not torch.equal(first[2].weight, second[2].weight)
    frozen = [torch.equal(each[0].weight, case.model[0].weight) for each in (first, second)]
    assert frozen == [True, True]


def class_request(forget: Tensor) -> tuple[nn.Module, Request]:
    case = vector_case()
    train = case.split.train
    return linear(), Request(Split(train, forget.nonzero().flatten()), seed=0, numerics=CPU)


def test_rows_of_forgotten_classes_are_drawn_anew() -> None:
    labels = vector_case().split.train.labels
    model, given = class_request(labels == 2)
    outcome = FisherForgetting(alpha=1e-12, max_examples=8)(model, given)
    before, after = model[2].weight.detach(), outcome.model[2].weight.detach()
    torch.testing.assert_close(after[[0, 1, 3]], before[[0, 1, 3]], atol=1e-3, rtol=0)
    assert float(after[2].std()) == pytest.approx(1e-3**0.5, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack((before[2], after[2])))[0, 1])) < 0.15
    assert outcome.log[-1]["reset_rows"] == 1
    kept = FisherForgetting(alpha=1e-12, max_examples=8, reset_head=False)(model, given)
    torch.testing.assert_close(kept.model[2].weight.detach(), before, atol=1e-3, rtol=0)


def test_rows_stay_where_a_class_is_forgotten_in_part() -> None:
    labels = vector_case().split.train.labels
    some = labels == 2
    some[some.nonzero()[0]] = False
    model, given = class_request(some)
    outcome = FisherForgetting(alpha=1e-12, max_examples=8)(model, given)
    torch.testing.assert_close(outcome.model[2].weight, model[2].weight, atol=1e-3, rtol=0)
    assert outcome.log[-1]["reset_rows"] == 0


@pytest.mark.parametrize(("most", "used"), [(5, 5), (0, 56), (1000, 56)])
def test_number_of_examples_is_bounded(most: int, used: int) -> None:
    case, method = vector_case(), FisherForgetting(max_examples=most)
    outcome = method(case.fresh(), case.request(method))
    assert outcome.log[-1]["examples"] == used
    assert outcome.cost.sample_gradients == used * 4


@pytest.mark.parametrize("name", ["alpha", "clamp", "head_clamp", "boost", "forget_variance"])
def test_settings(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} must be positive and finite, got 0.0"):
        FisherForgetting(**{name: 0.0})


def test_settings_and_models_that_cannot_work() -> None:
    with pytest.raises(InvalidInput, match=r"max_examples must be at least 0 \(0 for all\), got -1"):
        FisherForgetting(max_examples=-1)
    case, method = image_case(), FisherForgetting()
    with pytest.raises(InvalidInput, match="has no linear layer with 6 outputs"):
        method(nn.Sequential(nn.Conv2d(1, 6, 8), nn.Flatten()), case.request(method))
    given: Any = Request(
        Split(case.split.train, torch.arange(len(case.split.train))), seed=0, numerics=case.numerics
    )
    with pytest.raises(InvalidInput, match="Fisher information is not defined over no examples"):
        method(case.fresh(), given)
