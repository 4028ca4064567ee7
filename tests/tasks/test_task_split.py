from __future__ import annotations

import pytest
import torch
from torch import Tensor

from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.tasks.base import Split, check_forget


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_positions_come_back_sorted(dtype: torch.dtype) -> None:
    checked = check_forget(torch.tensor([7, 0, 3], dtype=dtype), 8)
    assert checked.tolist() == [0, 3, 7]
    assert checked.dtype == torch.int64


def test_boolean_mask() -> None:
    mask = torch.tensor([False, True, False, True])
    assert check_forget(mask, 4).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.tensor([], dtype=torch.int64), "the forget set is empty: name at least one example to forget"),
        (torch.tensor([]), "the forget set is empty"),
        (torch.zeros(5, dtype=torch.bool), "the forget set is empty"),
        (
            torch.tensor([3, 1, 3, 1, 1]),
            r"3 forget indices are repeated \(the first is 1\); name each example once",
        ),
        (
            torch.tensor([0, 5, 9]),
            r"must lie in 0\.\.4, but 2 do not \(the first is 5\); number the examples from 0",
        ),
        (torch.tensor([2, -1]), r"must lie in 0\.\.4, but 1 do not \(the first is -1\)"),
        (torch.arange(5), "the forget set is all of the 5 training examples; nothing would remain"),
        (torch.ones(5, dtype=torch.bool), "the forget set is all of the 5 training examples"),
        (torch.tensor([0.0, 1.0]), "forget indices must be integers, got torch.float32"),
        (torch.tensor([1 + 0j]), "forget indices must be integers, got torch.complex64"),
        (
            torch.ones(4, dtype=torch.bool),
            "boolean forget mask must have one entry for each of the 5 .*, got 4",
        ),
    ],
)
def test_refused(positions: Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_forget(positions, 5)


def test_split_divides_the_training_set() -> None:
    train = learnable_images(n_train=12).test()
    split = Split(train, torch.tensor([2, 5]))
    assert split.forget.index.tolist() == [2, 5]
    assert torch.equal(split.forget.labels, train.labels[[2, 5]])
    assert split.retain.index.tolist() == [i for i in range(len(train)) if i not in (2, 5)]
    assert split.forget_mask.nonzero().flatten().tolist() == [2, 5]
