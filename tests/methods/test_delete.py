from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.data.examples import Batch
from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Request
from expunge.methods.delete import Delete, DistilErased, erased
from expunge.tasks.base import Split
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def test_target_has_no_mass_at_the_label_and_the_teachers_proportions_elsewhere() -> None:
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(40) % 7
    target, teacher = erased(logits, labels), logits.softmax(1)
    for i in range(40):
        u = int(labels[i])
        assert float(target[i, u]) == 0
        rest = sum(float(teacher[i, k]) for k in range(7) if k != u)
        for k in range(7):
            if k != u:
                assert float(target[i, k]) == pytest.approx(float(teacher[i, k]) / rest, rel=1e-4, abs=1e-7)


def test_loss_is_a_slow_sum_and_zero_at_the_student_without_the_label() -> None:
    draw = torch.Generator().manual_seed(1)
    teacher, student = torch.randn(2, 9, 4, generator=draw)
    batch = Batch(torch.arange(9), torch.arange(9) % 4, torch.arange(9))
    objective = DistilErased(lambda rows: teacher[rows])

    def loss(logits: torch.Tensor) -> float:
        table = nn.Embedding.from_pretrained(logits)
        value, gradients = objective(table, batch)
        assert gradients == 9
        return float(value)

    expected = 0.0
    for i in range(9):
        q, u = student[i].softmax(0), i % 4
        z = [float(teacher[i, k].exp()) for k in range(4)]
        for k in range(4):
            if k != u:
                p = z[k] / (sum(z) - z[u])
                expected += p * float(torch.log(p / q[k])) / 9
    assert loss(student) == pytest.approx(expected, rel=1e-5)
    gone = teacher.clone()
    gone[torch.arange(9), torch.arange(9) % 4] = -1e4
    assert loss(gone + 2) == pytest.approx(0, abs=1e-6)


def test_a_single_step_descends_by_the_closed_form_gradient() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    train = in_memory(torch.cat([x, x]), torch.arange(10) % 4, 4)
    model = nn.Linear(3, 4)
    method = Delete(lr=0.5, batch_size=5, momentum=0, weight_decay=0, epochs=1)
    outcome = method(model, Request(Split(train, torch.arange(5)), seed=0, numerics=CPU))
    with torch.no_grad():
        # the gradient of KL(p || softmax(z)) by z is softmax(z) - p
        logits = model(x)
        slope = logits.softmax(1) - erased(logits, torch.arange(5) % 4)
        expected = model.weight - 0.5 * slope.T @ x / 5
    assert torch.allclose(outcome.model.weight, expected, atol=1e-6)
    assert outcome.cost.sample_gradients == 5


def test_reads_the_forget_set_only_and_refuses_an_empty_one() -> None:
    assert Delete.needs == Needs.FORGET
    train = in_memory(torch.randn(6, 3), torch.arange(6) % 3, 3)
    with pytest.raises(InvalidInput, match="at least 1 is expected"):
        Delete()(nn.Linear(3, 3), Request(Split(train, torch.arange(0)), seed=0, numerics=CPU))


def test_one_class_is_refused() -> None:
    train = in_memory(torch.randn(6, 3), torch.zeros(6, dtype=torch.int64), 1)
    with pytest.raises(InvalidInput, match="got 1 class; at least 2"):
        Delete()(nn.Linear(3, 1), Request(Split(train, torch.arange(3)), seed=0, numerics=CPU))


def test_defaults_are_the_published_ones() -> None:
    method = Delete()
    assert (method.optimiser, method.momentum, method.weight_decay) == ("sgd", 0.9, 0.0)
    assert (method.lr, method.epochs, method.batch_size) == (1e-3, 20, 128)


def test_passes_must_be_positive() -> None:
    with pytest.raises(InvalidInput, match="epochs must be positive"):
        Delete(epochs=0)
