from __future__ import annotations

import pytest
import torch

from expunge.detection.out_of_sample import in_large_classes, stratified_folds
from expunge.errors import InvalidInput


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_classes_and_sizes_are_balanced(folds: int) -> None:
    labels = torch.tensor([0] * 13 + [1] * 7 + [4] * 5)[torch.randperm(25, generator=torch.Generator())]
    fold = stratified_folds(labels, folds, seed=0)
    assert set(fold.tolist()) == set(range(folds))
    for members in (fold, *(fold[labels == label] for label in (0, 1, 4))):
        counts = torch.bincount(members, minlength=folds)
        assert int(counts.max() - counts.min()) <= 1


def test_the_seed_decides() -> None:
    labels = torch.arange(40) % 2
    assert torch.equal(stratified_folds(labels, 4, 1), stratified_folds(labels, 4, 1))
    assert not torch.equal(stratified_folds(labels, 4, 1), stratified_folds(labels, 4, 2))


def test_too_few_examples_name_the_class_and_the_remedy() -> None:
    labels = torch.tensor([0] * 9 + [3] * 2 + [5] * 4)
    with pytest.raises(
        InvalidInput, match=r"class 3 has 2 \(2 classes have too few\); choose 2 folds, or take the rows"
    ):
        stratified_folds(labels, 5, 0)
    with pytest.raises(InvalidInput, match=r"class 1 has 1 \(1 classes have too few\); take the rows"):
        stratified_folds(torch.tensor([0, 0, 1]), 2, 0)


def test_bad_requests() -> None:
    with pytest.raises(InvalidInput, match="at least 2 folds, got 1"):
        stratified_folds(torch.arange(10) % 2, 1, 0)
    with pytest.raises(InvalidInput, match="all 10 labels are of one class"):
        stratified_folds(torch.zeros(10, dtype=torch.int64), 2, 0)


def test_small_classes_are_left_out_where_two_others_remain() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    assert in_large_classes(labels, 2).tolist() == [True, True, False, True, True, True]
    assert in_large_classes(labels, 3).all()
