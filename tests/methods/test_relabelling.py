from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from expunge.data.examples import Batch, Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.amnesiac import Amnesiac, wrong_labels
from expunge.methods.base import Request
from expunge.methods.relabelling import redraw_head
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.testing.method_contract import MethodContract
from expunge.training.loop import Loss, cross_entropy
from expunge.training.numerics import Numerics
from expunge.training.schedule import schedule_named

CPU = Numerics(channels_last=False)


def train(n_classes: int = 4, count: int = 80) -> Examples:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return examples_from_dataset(TensorDataset(x, torch.arange(count) % n_classes), n_classes)


def request(split: Split, method: Amnesiac) -> Request:
    return Request(split, seed=0, numerics=CPU).grant(method.name, method.needs)


def test_cosine_ends_at_zero() -> None:
    cosine = schedule_named("cosine")
    assert cosine(9, 10) == 0
    assert cosine(4, 10) == pytest.approx(0.5)
    assert cosine(0, 10) == pytest.approx((1 + math.cos(math.pi / 10)) / 2)


def test_one_loader_with_the_cosine_over_all_steps() -> None:
    method = Amnesiac(batch_size=32, epochs=2, lr=0.1)
    split = Split(train(), torch.arange(10))
    model, seen, rates, sizes = nn.Linear(3, 4), [], [], []
    optimizer = method.optimiser_over(model)

    def record(model: nn.Module, batch: Batch) -> Loss:
        rates.append(optimizer.param_groups[0]["lr"])
        sizes.append(len(batch))
        seen.extend(batch.index.tolist())
        return cross_entropy(model, batch)

    method.learn(model, request(split, method), split.forget, objective=record, optimizer=optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sizes == [32, 32, 16] * 2
    assert sorted(seen[:80]) == list(range(80))
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * (i + 1) / 6)) for i in range(6)])
    assert rates[-1] == 0


def test_uniform_labels_are_wrong_and_even() -> None:
    forget = train(4, 4000)
    found = wrong_labels(forget, forget, "uniform", generator(0))
    assert not bool((found == forget.labels).any())
    for label in range(4):
        others = torch.bincount(found[forget.labels == label], minlength=4)
        assert sorted(others.tolist())[1] > 280


def test_remaining_labels_follow_the_stock() -> None:
    forget = train(4, 40).select(torch.arange(0, 40, 4))  # class 0
    retain = train(4, 40).select(
        torch.tensor([1, 5, 9, 13, 17, 21, 2, 6, 3, 0, 4])
    )  # 6, 2, 1 and 2 of class 0
    found = wrong_labels(forget.select(torch.arange(9)), retain, "remaining", generator(0))
    assert torch.bincount(found, minlength=4).tolist() == [0, 6, 2, 1]
    # the tenth finds nothing unused and starts over
    assert 0 not in wrong_labels(forget, retain, "remaining", generator(0)).tolist()


def test_whole_classes() -> None:
    examples, method = train(), Amnesiac(reinit_head=None)

    def whole_classes(mask: torch.Tensor) -> bool:
        return method.draws_head(request(Split(examples, mask.nonzero().flatten()), method))

    assert not whole_classes(examples.labels < 0)
    assert whole_classes(examples.labels == 1)
    assert not whole_classes(torch.arange(80) < 9)


def test_redrawn_head_keeps_its_bias() -> None:
    head = nn.Linear(300, 100)
    bias = head.bias.detach().clone()
    redraw_head(head, generator(0))
    assert torch.equal(head.bias, bias)
    assert float(head.weight.detach().std()) == pytest.approx(math.sqrt(2 * 2 / 400), rel=0.05)


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="labels must be one of 'uniform', 'remaining', got 'none'"):
        Amnesiac(labels="none")
    split = Split(train(2), (torch.arange(80) % 2 == 0).nonzero().flatten()[:-1])
    retained_only_own = Split(split.train.relabel(torch.zeros(80, dtype=torch.int64)), torch.arange(10))
    with pytest.raises(InvalidInput, match="none has a label other than 0; use labels='uniform'"):
        Amnesiac(labels="remaining")(nn.Linear(3, 2), Request(retained_only_own, seed=0, numerics=CPU))
    with pytest.raises(InvalidInput, match="linear layer with 2 outputs"):
        Amnesiac(reinit_head=True)(nn.Conv1d(3, 2, 1), Request(split, seed=0, numerics=CPU))


class TestAmnesiacRemainingContract(MethodContract):
    method = Amnesiac(batch_size=32, lr=0.01, epochs=10, labels="remaining")
    margin = 0.3
