from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.data.examples import Batch
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.l1_sparse import DecayingL1, L1Sparse, l1_norm
from expunge.tasks.base import Split
from expunge.testing.method_contract import image_case
from expunge.training.loop import cross_entropy
from expunge.training.numerics import Numerics


def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch(torch.randn(6, 4, generator=draw), torch.arange(6) % 3, torch.arange(6))


def test_weight_falls_linearly_to_zero() -> None:
    model, objective = nn.Linear(4, 3), DecayingL1(0.2, 4)
    plain = float(cross_entropy(model, batch()).value.detach())
    norm = sum(float(p.detach().abs().sum()) for p in model.parameters())
    for expected in (0.2, 0.15, 0.1, 0.05, 0.0, 0.0):
        assert objective.weight == pytest.approx(expected)
        loss = objective(model, batch())
        assert float(loss.value.detach()) == pytest.approx(plain + expected * norm, rel=1e-5)
        assert loss.gradients == 6


def test_norm_leaves_out_frozen_parameters() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
        model.bias.copy_(torch.tensor([-0.5, 0.5]))
    assert float(l1_norm(model).detach()) == 11
    model.bias.requires_grad_(False)
    assert float(l1_norm(model).detach()) == 10


def test_steps_are_the_hand_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=draw), torch.arange(12) % 3
    train = examples_from_dataset(torch.utils.data.TensorDataset(x, y), 3)
    request = Request(Split(train, torch.arange(4)), seed=0, numerics=Numerics(channels_last=False))
    model = nn.Linear(4, 3, bias=False)
    method = L1Sparse(lr=0.1, momentum=0, weight_decay=0, batch_size=32, gamma=0.05, epochs=4)
    after = method(model, request).model.weight.detach()
    w, kept, labels = model.weight.detach(), x[4:], torch.eye(3)[y[4:]]
    for step in range(4):
        slope = ((kept @ w.T).softmax(1) - labels).T @ kept / 8
        w = w - 0.1 * (slope + 0.05 * (1 - step / 4) * w.sign())
    torch.testing.assert_close(after, w)


def test_more_penalty_gives_a_smaller_norm() -> None:
    case, norms = image_case(), []
    for gamma in (0.0, 1e-2, 1e-1):
        method = L1Sparse(batch_size=64, lr=0.02, gamma=gamma, epochs=2)
        norms.append(float(l1_norm(method(case.model, case.request(method)).model).detach()))
    assert norms == sorted(norms, reverse=True)
    assert norms[2] < 0.9 * norms[0]


@pytest.mark.parametrize("gamma", [-1e-3, float("inf"), float("nan")])
def test_bad_penalty_is_refused(gamma: float) -> None:
    with pytest.raises(InvalidInput, match="gamma must be at least 0 and finite"):
        L1Sparse(gamma=gamma)


def test_no_epochs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="epochs must be positive"):
        L1Sparse(epochs=0)
