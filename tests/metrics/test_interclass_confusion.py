from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from trained_models import CPU

from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.metrics.base import Evaluated, NotDefined
from expunge.metrics.interclass_confusion import FgtError, InterclassError, fgt_error, interclass_error
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask

DATA = learnable_images(n_train=120, n_test=90, n_classes=4)
LABELS = torch.tensor([1, 1, 1, 2, 2, 0, 3, 2])
PREDICTED = torch.tensor([1, 2, 0, 1, 2, 2, 1, -1])


class Noise(nn.Module):
    """Predicts a class that looks random but follows from the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(64, 4, generator=torch.Generator().manual_seed(4)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (37 * (x.flatten(1) @ self.weight)).sin()
        return logits


def problem(regularity: float = 0.5, discovery: float = 0.5) -> Problem:
    task = CorruptionTask(
        n_corrupted=24, regularity=regularity, discovery=discovery, swap_classes=(1, 2), target_class=3
    )
    return task.build(DATA)


def test_by_hand() -> None:
    # of six images of 1 and 2, wrong are 1->2, 1->0, 2->1 and the one without an answer
    assert interclass_error(PREDICTED, LABELS, (1, 2)) == pytest.approx(4 / 6)
    assert fgt_error(PREDICTED, LABELS, (1, 2)) == 2
    assert fgt_error(PREDICTED, LABELS, (2, 1)) == 2
    assert interclass_error(LABELS, LABELS, (1, 2)) == 0 == fgt_error(LABELS, LABELS, (1, 2))


@pytest.mark.parametrize("function", [interclass_error, fgt_error])
def test_refusals(function: object) -> None:
    assert callable(function)
    with pytest.raises(InvalidInput, match="no example of the swapped classes 7 and 8"):
        function(PREDICTED, LABELS, (7, 8))
    with pytest.raises(InvalidInput, match=r"shapes \(8,\) and \(3,\)"):
        function(PREDICTED, LABELS[:3], (1, 2))


@pytest.mark.parametrize("regularity", [0.25, 0.5, 0.75])
def test_a_model_agrees_with_a_plain_loop(regularity: float) -> None:
    given, model = problem(regularity), Noise()
    forget = set(given.split.forget_positions.tolist())
    wrong = {"": 0, "_forget": 0, "_retain": 0}
    mistaken, count = dict(wrong), dict(wrong)
    train = next(given.split.train.batches(120)).x
    test = next(given.truth.sets["test"].batches(90)).x
    for part, x, true in (("train", train, given.truth.true_labels), ("", test, DATA.test_labels)):
        for position, label in enumerate(true.tolist()):
            if label not in (1, 2):
                continue
            where = ("_forget" if position in forget else "_retain") if part else ""
            answer = int(model(x[position : position + 1]).argmax())
            count[where] += 1
            wrong[where] += answer != label
            mistaken[where] += answer == 3 - label
    evaluated = Evaluated(model, given, CPU)
    errors = {name: value.value for name, value in InterclassError().values(evaluated).items()}
    assert errors == pytest.approx({f"interclass_error{part}": wrong[part] / count[part] for part in count})
    found = {name: value.value for name, value in FgtError().values(evaluated).items()}
    assert found == {f"fgt_error{part}": mistaken[part] for part in count}
    assert InterclassError()(evaluated) == errors["interclass_error"]
    assert FgtError()(evaluated) == found["fgt_error"]


@pytest.mark.parametrize("regularity", [0.0, 1.0])
def test_not_defined_without_swapped_classes(regularity: float) -> None:
    with pytest.raises(NotDefined, match="no classes were swapped"):
        InterclassError()(Evaluated(Noise(), problem(regularity), CPU))
