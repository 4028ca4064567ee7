from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.joined import in_memory
from expunge.repair.measure import Share, Yardstick, measure
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


class Table(nn.Module):
    """Answers each row, an input of one number, with the class of a table."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__()
        self.register_buffer("answers", torch.tensor(answers))
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return 5 * nn.functional.one_hot(self.answers[x[:, 0].long()], 3).float()


def rows(labels: list[int]) -> Examples:
    return in_memory(torch.arange(len(labels)).float()[:, None], torch.tensor(labels), 3)


def test_shares_by_hand() -> None:
    train = rows([0, 0, 1, 1, 2, 2])
    forget = torch.tensor([False, True, False, True, False, False])
    true = torch.tensor([-1, 2, -1, -1, 0, 2])  # row 4 is bad and not listed, row 5 is confirmed
    model = Table([0, 2, 1, 1, 0, 1])
    found = measure(model, Yardstick(train, forget, true_labels=true), CPU)
    assert found.predictions.tolist() == [0, 2, 1, 1, 0, 1]
    assert found.retained == Share(2, 4)
    assert found.forget_as_stored == Share(1, 2)
    assert found.healed_known == Share(1, 1)
    assert found.healed_unknown == Share(1, 1)
    assert found.per_class == (Share(1, 1), Share(1, 1), Share(0, 2))
    assert found.validation is None
    assert found.attacks == {}


def test_a_forgotten_class_is_no_loss_of_validation_accuracy() -> None:
    train, held_out = rows([0, 1, 2]), rows([0, 1, 2])
    forget = torch.tensor([False, False, True])
    model = Table([0, 1, 0])
    assert measure(model, Yardstick(train, forget, held_out), CPU).validation == Share(2, 3)
    on = Yardstick(train, forget, held_out, forgotten_classes=(2,))
    assert measure(model, on, CPU).validation == Share(2, 2)


def test_membership_of_rows_that_look_like_others_is_a_half() -> None:
    labels = [0, 1, 2] * 8
    train, held_out = rows(labels + labels), rows(labels)
    forget = torch.arange(48) < 24
    found = measure(Table(labels + labels), Yardstick(train, forget, held_out), CPU)
    assert {name: attack.auc for name, attack in found.attacks.items()} == {
        "loss": 0.5,
        "entropy": 0.5,
        "modified entropy": 0.5,
    }
    low, high = found.attacks["loss"].low, found.attacks["loss"].high
    assert low is not None
    assert high is not None
    assert 0 < low <= 0.5 <= high < 1
    # The same model, with wrong answers on half of the rows that were never seen.
    worse = Table(labels + labels)
    worse.forward = lambda x: Table.forward(worse, x) * (1 if len(x) > 24 else -1)  # type: ignore[method-assign]
    told = measure(worse, Yardstick(train, forget, held_out), CPU)
    assert told.attacks["loss"].auc == pytest.approx(1.0)


def test_nan_is_no_prediction() -> None:
    model = Table([0, 1, 2])
    model.forward = lambda x: torch.full((len(x), 3), float("nan"))  # type: ignore[method-assign]
    found = measure(model, Yardstick(rows([0, 1, 2]), torch.tensor([True, False, False])), CPU)
    assert found.predictions.tolist() == [-1, -1, -1]
    assert found.retained == Share(0, 2)
