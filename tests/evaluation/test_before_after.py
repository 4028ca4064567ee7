from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.joined import in_memory
from expunge.evaluation.before_after import Share, Yardstick, damages, measure
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


def test_a_forgotten_class_is_no_loss_of_validation_accuracy() -> None:
    train, held_out = rows([0, 1, 2]), rows([0, 1, 2])
    forget = torch.tensor([False, False, True])
    model = Table([0, 1, 0])
    assert measure(model, Yardstick(train, forget, held_out), CPU).validation == Share(2, 3)
    on = Yardstick(train, forget, held_out, forgotten_classes=(2,))
    assert measure(model, on, CPU).validation == Share(2, 2)


def test_damages_by_hand() -> None:
    train = rows([0, 0, 1, 1, 2, 2])
    on = Yardstick(train, torch.tensor([True] + 5 * [False]))
    before = measure(Table([0, 0, 1, 1, 2, 2]), on, CPU)
    after = measure(Table([0, 0, 1, 2, 0, 0]), on, CPU)
    found = damages(before, after, ["a", "b", "c"])
    assert [(damage.name, damage.loss) for damage in found] == [("c", 1.0), ("b", 0.5), ("a", 0.0)]
    assert [damage.name for damage in damages(before, after, ["a", "b", "c"], forgotten=[2])] == ["b", "a"]


def test_nan_is_no_prediction() -> None:
    model = Table([0, 1, 2])
    model.forward = lambda x: torch.full((len(x), 3), float("nan"))  # type: ignore[method-assign]
    found = measure(model, Yardstick(rows([0, 1, 2]), torch.tensor([True, False, False])), CPU)
    assert found.predictions.tolist() == [-1, -1, -1]
    assert found.retained == Share(0, 2)
