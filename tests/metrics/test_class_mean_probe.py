from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from expunge.data.examples import Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.logit_mask import LogitMask
from expunge.metrics.probes import class_mean_probe
from expunge.seeding import generator, global_generator
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def examples(count: int, seed: int) -> Examples:
    labels = torch.arange(count) % 3
    centres = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    x = centres[labels] + 0.7 * torch.randn(count, 4, generator=generator(seed))
    return examples_from_dataset(TensorDataset(x, labels), 3)


def network() -> nn.Module:
    with global_generator(generator(0)):
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)).train()


def one_by_one(model: nn.Module, train: Examples, test: Examples, per_class: int) -> float:
    def inner(examples: Examples) -> Tensor:
        return model[1](model[0](next(examples.batches(len(examples))).x)).detach()

    known, right = inner(train), 0
    means = []
    for label in range(3):
        rows = [known[i] for i in range(len(train)) if int(train.labels[i]) == label][:per_class]
        means.append(sum(rows) / len(rows))
    for row, label in zip(inner(test), test.labels.tolist(), strict=True):
        distances = [float(((row - mean) ** 2).sum()) for mean in means]
        right += distances.index(min(distances)) == label
    return right / len(test)


@pytest.mark.parametrize("per_class", [1, 7, 100])
def test_agrees_with_a_plain_loop(per_class: int) -> None:
    model, train, test = network(), examples(60, 1), examples(45, 2)
    value = class_mean_probe(model, train, test, CPU, per_class)
    assert value == pytest.approx(one_by_one(model, train, test, per_class))
    assert 1 / 3 < value < 1
    assert model.training
    of_one = test.select(test.labels == 1)
    assert class_mean_probe(model, train, of_one, CPU) == pytest.approx(one_by_one(model, train, of_one, 100))


def test_a_mask_of_the_logit_hides_nothing_from_it() -> None:
    model, train, test = network(), examples(60, 1), examples(45, 2)
    split = Split(train, (train.labels == 1).nonzero().flatten())
    masked = LogitMask()(model, Request(split, seed=0, numerics=CPU)).model
    of_one = test.select(test.labels == 1)
    assert class_mean_probe(masked, train, of_one, CPU) == class_mean_probe(model, train, of_one, CPU) > 0.5


def test_features_that_are_gone_leave_chance() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.zero_()
    assert class_mean_probe(model, examples(60, 1), examples(45, 2), CPU) == pytest.approx(1 / 3)


def test_a_class_without_training_examples_is_never_answered() -> None:
    train, test = examples(60, 1), examples(45, 2)
    without = train.select(train.labels != 1)
    assert class_mean_probe(network(), without, test.select(test.labels == 1), CPU) == 0
    assert class_mean_probe(network(), without, test.select(test.labels != 1), CPU) > 0.5


def test_refusals() -> None:
    train, none = examples(60, 1), examples(60, 1).select(torch.tensor([], dtype=torch.int64))
    for given in ((none, train, 100), (train, none, 100), (train, train, 0)):
        with pytest.raises(InvalidInput, match="the probe needs training and test examples and at least one"):
            class_mean_probe(network(), given[0], given[1], CPU, given[2])
