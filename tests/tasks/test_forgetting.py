from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from expunge.data.images import ImageData
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.registry import TASKS
from expunge.tasks.forgetting import (
    ForgetClasses,
    ForgetHardest,
    ForgetIndices,
    ForgetRandom,
    ForgetSubclass,
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    made = learnable_images(n_train=200, n_test=60, n_classes=4)
    return replace(made, train_fine=_fine(made.train_labels), test_fine=_fine(made.test_labels))


def _fine(labels: torch.Tensor) -> torch.Tensor:
    return labels * 2 + torch.arange(len(labels)) % 2


def test_classes(data: ImageData) -> None:
    problem = ForgetClasses(classes=(2, 1, 2)).build(data)
    assert set(problem.split.forget.labels.tolist()) == {1, 2}
    assert set(problem.split.retain.labels.tolist()) == {0, 3}
    assert problem.split.forget_classes == (1, 2)
    sets = problem.truth.sets
    assert set(sets["forget_test"].labels.tolist()) == {1, 2}
    assert set(sets["remaining_test"].labels.tolist()) == {0, 3}
    assert "siblings_test" not in sets
    assert len(problem.truth.corrupted) == 0
    assert torch.equal(problem.split.train.labels, data.train_labels)


def test_subclass(data: ImageData) -> None:
    problem = ForgetSubclass(fine=5).build(data)
    positions = problem.split.forget_positions
    assert data.train_fine is not None
    assert set(data.train_fine[positions].tolist()) == {5}
    assert int((data.train_fine == 5).sum()) == len(positions)
    assert problem.split.forget_classes == ()  # the siblings keep the label
    sets = problem.truth.sets
    assert set(sets["siblings_test"].labels.tolist()) == set(sets["forget_test"].labels.tolist()) == {2}
    assert len(sets["forget_test"]) + len(sets["remaining_test"]) == len(data.test_labels)


def test_random_is_stratified_and_follows_the_seed(data: ImageData) -> None:
    first = ForgetRandom(share=0.1, seed=3).build(data)
    again = ForgetRandom(share=0.1, seed=3).build(data)
    other = ForgetRandom(share=0.1, seed=4).build(data)
    assert torch.equal(first.split.forget_positions, again.split.forget_positions)
    assert not torch.equal(first.split.forget_positions, other.split.forget_positions)
    assert torch.bincount(first.split.forget.labels).tolist() == [5, 5, 5, 5]
    assert len(first.truth.sets["remaining_test"]) == len(data.test_labels)
    assert "forget_test" not in first.truth.sets


def test_hardest_are_those_of_the_highest_loss(data: ImageData) -> None:
    difficulty = torch.zeros(200)
    difficulty[torch.tensor([7, 100, 3])] = torch.tensor([1.0, 3.0, 2.0])
    problem = ForgetHardest(share=0.01).build(data, difficulty)
    assert problem.split.forget_positions.tolist() == [3, 100]
    with pytest.raises(InvalidInput, match="'hardest' needs the mean training loss of every example"):
        ForgetHardest().build(data)
    with pytest.raises(InvalidInput, match="one value for each of the 200 training images, got 3"):
        ForgetHardest().build(data, difficulty[:3])


def test_indices(data: ImageData) -> None:
    problem = ForgetIndices(indices=(9, 4)).build(data)
    assert problem.split.forget_positions.tolist() == [4, 9]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (ForgetClasses(classes=(7,)), r"class 7 does not exist: .* has classes 0\.\.3"),
        (ForgetClasses(classes=(0, 1, 2, 3)), "the forget set is all of the 200 training examples"),
        (ForgetSubclass(fine=44), "no training image of .* has the fine label 44"),
        (ForgetIndices(), "the forget set is empty"),
        (ForgetIndices(indices=(1, 1)), "1 forget indices are repeated"),
        (ForgetIndices(indices=(200,)), r"must lie in 0\.\.199, but 1 do not"),
    ],
)
def test_refusals(data: ImageData, task: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        task.check(data)


def test_settings_are_checked() -> None:
    for kind in (ForgetRandom, ForgetHardest):
        with pytest.raises(InvalidInput, match=r"share to forget must lie in \(0, 1\), got 1"):
            kind(share=1.0)
    with pytest.raises(InvalidInput, match="classes is empty"):
        ForgetClasses(classes=())


def test_no_fine_labels() -> None:
    with pytest.raises(InvalidInput, match="has no fine labels, so it has no sub-classes"):
        ForgetSubclass().check(learnable_images(n_train=20, n_classes=2))


def test_keys_differ_between_tasks_and_agree_in_training(data: ImageData) -> None:
    problems = [
        task.build(data)
        for task in (ForgetClasses(), ForgetClasses(classes=(1,)), ForgetRandom(), ForgetRandom(share=0.2))
    ]
    assert len({problem.key for problem in problems}) == 4
    assert len({problem.training_key for problem in problems}) == 1


def test_kinds() -> None:
    for kind in TASKS.names():
        assert TASKS.get(kind).kind == kind


def test_held_out_images_are_unseen(data: ImageData) -> None:
    held = data.hold_out(40)
    problem = ForgetClasses().build(held)
    assert problem.split.unseen is not None
    assert len(problem.split.train) == 160
    assert torch.bincount(problem.split.unseen.labels).tolist() == [10, 10, 10, 10]
    together = torch.cat(
        [held.train_images, *([held.unseen_images] if held.unseen_images is not None else [])]
    )
    assert sorted(together.flatten(1).sum(1).tolist()) == sorted(data.train_images.flatten(1).sum(1).tolist())
    with pytest.raises(InvalidInput, match=r"200 images were to be held out; .* must stay"):
        data.hold_out(200)
