from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.data.images import Augmentation, ImageData
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput, UnknownName
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask

DATA = learnable_images(n_train=240, n_test=60, n_classes=6)
VALUES = (0.0, 0.2, 0.25, 0.5, 0.6, 0.75, 1.0)


def task(**settings: Any) -> CorruptionTask:
    return CorruptionTask(**{"n_corrupted": 20, "swap_classes": (1, 2), **settings})


def build(**settings: Any) -> Problem:
    return task(**settings).build(DATA)


def inputs(problem: Problem, positions: Tensor) -> Tensor:
    return next(problem.split.train.select(positions).batches(len(positions))).x


@pytest.mark.parametrize(
    ("regularity", "counts"),
    [
        (0.0, (20, 0, 0)),
        (0.2, (12, 8, 0)),
        (0.25, (10, 10, 0)),
        (0.5, (0, 20, 0)),
        (0.6, (0, 16, 4)),
        (0.75, (0, 10, 10)),
        (1.0, (0, 0, 20)),
    ],
)
def test_counts_of_every_mixture(regularity: float, counts: tuple[int, int, int]) -> None:
    chosen = task(regularity=regularity)
    assert chosen.counts() == counts
    problem = chosen.build(DATA)
    assert len(problem.truth.corrupted) == 20
    assert int(problem.truth.stamped.sum()) == counts[2]
    true, stored = problem.truth.true_labels, problem.split.train.labels
    changed = problem.truth.corrupted
    unstamped = changed[~problem.truth.stamped[changed]]
    exchanged = {(1, 2): 0, (2, 1): 0}
    for position in unstamped.tolist():
        pair = (int(true[position]), int(stored[position]))
        exchanged[pair] = exchanged.get(pair, 0) + 1
    if counts[0] == 0:
        assert exchanged == {(1, 2): counts[1] // 2, (2, 1): counts[1] // 2}
    else:
        assert exchanged[1, 2] >= counts[1] // 2
        assert exchanged[2, 1] >= counts[1] // 2


def test_odd_swaps_give_the_extra_image_to_the_first_class() -> None:
    problem = build(regularity=0.5, n_corrupted=7)
    assert problem.truth.true_labels[problem.truth.corrupted].bincount(minlength=3).tolist() == [0, 4, 3]


@pytest.mark.parametrize("regularity", VALUES)
def test_labels_differ_from_the_truth_exactly_where_corrupted(regularity: float) -> None:
    problem = build(regularity=regularity, seed=3)
    assert torch.equal(problem.truth.true_labels, DATA.train_labels)
    differing = (problem.split.train.labels != DATA.train_labels).nonzero().flatten()
    assert torch.equal(differing, problem.truth.corrupted)


def test_random_labels_are_spread_over_all_other_classes() -> None:
    problem = build(n_corrupted=200)
    changed = problem.truth.corrupted
    shift = (problem.split.train.labels - DATA.train_labels)[changed] % 6
    times = shift.bincount(minlength=6).tolist()
    assert times[0] == 0
    # 200 draws over five: mean 40, standard deviation 5.7
    assert all(17 < count < 63 for count in times[1:])


def test_poison_takes_other_classes_gives_the_target_and_stamps() -> None:
    problem = build(regularity=1.0, target_class=4)
    changed = problem.truth.corrupted
    assert problem.truth.target_class == 4
    assert not (DATA.train_labels[changed] == 4).any()
    assert (problem.split.train.labels[changed] == 4).all()
    assert len(DATA.train_labels[changed].unique()) > 2


def test_the_trigger_is_on_the_poisoned_images_alone_and_survives_augmentation() -> None:
    data = replace(DATA, augmentation=Augmentation(pad=2, flip=True))
    problem = task(regularity=0.75, patch=2).build(data)
    plain = replace(DATA).test().source.__class__(DATA.train_images, DATA.mean, DATA.std)
    every = torch.arange(240)
    clean, stored = plain.fetch(every, None), inputs(problem, every)
    stamped = problem.truth.stamped
    assert torch.equal(stored[~stamped], clean[~stamped])
    top = float(clean.max())
    assert torch.allclose(stored[stamped][:, :, -2:, -2:], torch.full((10, 1, 2, 2), top))
    assert torch.equal(stored[stamped][:, :, :-2], clean[stamped][:, :, :-2])
    assert torch.equal(stored[stamped][:, :, :, :-2], clean[stamped][:, :, :, :-2])
    shifted = problem.split.train.source.fetch(every, torch.Generator().manual_seed(0))
    assert torch.allclose(shifted[stamped][:, :, -2:, -2:], torch.full((10, 1, 2, 2), top))
    assert not torch.equal(shifted[~stamped], clean[~stamped])


@pytest.mark.parametrize("regularity", VALUES)
def test_discovered_sets_are_nested(regularity: float) -> None:
    before: set[int] = set()
    for discovery in (0.05, 0.1, 0.25, 0.5, 0.9, 1.0):
        problem = build(regularity=regularity, discovery=discovery)
        known, unknown = problem.truth.known.tolist(), problem.truth.unknown.tolist()
        assert len(known) == round(20 * discovery)
        assert before < set(known)
        assert sorted([*known, *unknown]) == problem.truth.corrupted.tolist()
        assert known == sorted(known)
        assert unknown == sorted(unknown)
        before = set(known)


@pytest.mark.parametrize(
    ("discovery", "count"), [(1e-9, 1), (0.001, 1), (0.051, 2), (0.15, 3), (0.35, 7), (0.7, 14)]
)
def test_discovery_rounds_up_to_at_least_one(discovery: float, count: int) -> None:
    assert len(build(discovery=discovery).truth.known) == count


def test_discovery_is_uniform_over_both_directions_of_the_swap() -> None:
    data = learnable_images(n_train=600, n_classes=3)
    chosen = CorruptionTask(regularity=0.5, discovery=0.5, n_corrupted=200, swap_classes=(0, 2))
    known = chosen.build(data).truth.known
    # hypergeometric: mean 50, standard deviation 3.5
    assert 32 < int((data.train_labels[known] == 0).sum()) < 68


def test_the_split_shows_the_forget_set_and_retain_keeps_the_undiscovered_corruption() -> None:
    problem = build(regularity=1.0, discovery=0.25)
    split, truth = problem.split, problem.truth
    assert torch.equal(split.forget_positions, truth.known)
    assert torch.equal(split.forget.index, truth.known)
    assert torch.equal(split.forget.labels, torch.zeros(5, dtype=torch.int64))
    retained = set(split.retain.index.tolist())
    assert retained == set(range(240)) - set(truth.known.tolist())
    assert set(truth.unknown.tolist()) < retained
    where = torch.isin(split.retain.index, truth.unknown)
    assert not split.retain.labels[where].any()
    assert torch.equal(next(split.retain.select(where).batches(99)).x, inputs(problem, truth.unknown))
    assert split.forget_mask.nonzero().flatten().tolist() == truth.known.tolist()


@pytest.mark.parametrize(
    ("regularity", "names"),
    [
        (0.0, ["test", "corrupted_known", "corrupted_unknown"]),
        (0.5, ["test", "corrupted_known", "corrupted_unknown", "swapped_classes", "other_classes"]),
        (1.0, ["test", "corrupted_known", "corrupted_unknown", "triggered_test"]),
    ],
)
def test_evaluation_sets_have_true_labels_in_a_fixed_order(regularity: float, names: list[str]) -> None:
    data = replace(DATA, augmentation=Augmentation(pad=2, flip=True))
    problem = task(regularity=regularity, discovery=0.5).build(data)
    sets, truth = problem.truth.sets, problem.truth
    assert list(sets) == names
    assert torch.equal(sets["test"].labels, DATA.test_labels)
    for name, positions in (("corrupted_known", truth.known), ("corrupted_unknown", truth.unknown)):
        assert torch.equal(sets[name].index, positions)
        assert torch.equal(sets[name].labels, DATA.train_labels[positions])
        assert torch.equal(next(sets[name].batches(99)).x, inputs(problem, positions))
    if regularity == 0.5:
        assert set(sets["swapped_classes"].labels.tolist()) == {1, 2}
        assert set(sets["other_classes"].labels.tolist()) == {0, 3, 4, 5}
        assert len(sets["swapped_classes"]) + len(sets["other_classes"]) == 60
    if regularity == 1.0:
        triggered, clean = (next(sets[name].batches(99)) for name in ("triggered_test", "test"))
        assert torch.equal(triggered.y, DATA.test_labels)
        assert (triggered.x[:, :, -3:, -3:] == triggered.x[0, 0, -1, -1]).all()
        assert torch.equal(triggered.x[:, :, :-3], clean.x[:, :, :-3])
        assert not torch.equal(triggered.x, clean.x)


def test_only_what_was_swapped_or_poisoned_is_named() -> None:
    random, swap, poison = (build(regularity=value).truth for value in (0.0, 0.5, 1.0))
    assert (random.target_class, random.swapped) == (None, ())
    assert (swap.target_class, swap.swapped) == (None, (1, 2))
    assert (poison.target_class, poison.swapped) == (0, ())


CHANGES: list[dict[str, Any]] = [
    {"seed": 1},
    {"regularity": 0.1},
    {"n_corrupted": 21},
    {"discovery": 0.75},
]


def test_key_and_training_key_follow_what_they_stand_for() -> None:
    base = build(discovery=0.5)
    again = build(discovery=0.5)
    assert (base.key, base.training_key) == (again.key, again.training_key)
    others = [build(**{"discovery": 0.5, **change}) for change in CHANGES]
    assert len({base.key, *(other.key for other in others)}) == 1 + len(CHANGES)
    different = [other.training_key for other in others[:3]]
    assert len({base.training_key, *different}) == 4
    assert others[3].training_key == base.training_key


def test_keys_follow_labels_pixels_and_augmentation() -> None:
    labels = DATA.train_labels.clone()
    labels[[0, 1]] = labels[[1, 0]]
    if torch.equal(labels, DATA.train_labels):
        labels[0] = (labels[0] + 1) % 6
    pixels = DATA.train_images.clone()
    pixels[0, 0, 0, 0] ^= 1
    variants = [
        DATA,
        replace(DATA, train_labels=labels),
        replace(DATA, train_images=pixels),
        replace(DATA, augmentation=Augmentation(flip=True)),
    ]
    built = [task().build(data) for data in variants]
    assert len({problem.key for problem in built}) == 4
    assert len({problem.training_key for problem in built}) == 4


def test_equal_settings_written_differently_have_one_key() -> None:
    assert build(regularity="interclass").key == build(regularity=0.5).key
    assert build(regularity=0, discovery=1).key == build(regularity=0.0, discovery=1.0).key


def test_another_process_builds_the_same_problem() -> None:
    code = (
        "from expunge.data.synthetic import learnable_images as images\n"
        "from expunge.tasks.corruption import CorruptionTask as Task\n"
        "data = images(n_train=240, n_test=60, n_classes=6)\n"
        "problem = Task(regularity=0.75, discovery=0.5, n_corrupted=20, swap_classes=(1, 2)).build(data)\n"
        "print(problem.key, problem.training_key, problem.split.train.labels.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    problem = build(regularity=0.75, discovery=0.5)
    assert (
        done.stdout.strip() == f"{problem.key} {problem.training_key} {problem.split.train.labels.tolist()}"
    )


def test_drawn_tensors_are_there_to_be_stored() -> None:
    problem = build(regularity=0.75, discovery=0.5)
    stored = problem.tensors()
    assert list(stored) == ["labels", "true_labels", "corrupted", "known", "stamped"]
    assert torch.equal(
        stored["labels"][stored["corrupted"]], problem.split.train.labels[problem.truth.corrupted]
    )


def test_seeds_give_unrelated_corruption() -> None:
    first, second = (set(build(seed=seed).truth.corrupted.tolist()) for seed in (0, 1))
    # twenty of 240 twice: 1.7 in common on average
    assert len(first & second) < 9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"discovery": 0}, r"discovery rate is the share .* must lie in \(0, 1\], got 0"),
        ({"discovery": 1.5}, r"discovery rate is the share .* must lie in \(0, 1\], got 1.5"),
        ({"discovery": float("nan")}, r"must lie in \(0, 1\], got nan"),
        ({"n_corrupted": 0}, "n_corrupted must be at least 1, got 0"),
        ({"swap_classes": (2, 2)}, r"swap_classes must be two different classes, got \(2, 2\)"),
        ({"patch": 0}, "the trigger patch must have at least one pixel, got 0"),
        ({"mislisted": 1.0}, r"mislisted is the share .* must lie in \[0, 1\), got 1.0"),
        ({"regularity": 1.2}, r"regularity must lie in \[0, 1\] .*, got 1.2"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        task(**wrong)


def test_unknown_regularity() -> None:
    with pytest.raises(
        UnknownName, match="unknown regularity 'medium'; expected random, interclass, poison or"
    ):
        task(regularity="medium")


SMALL = learnable_images(n_train=12, n_test=6, n_classes=3)


def unbalanced(labels: list[int]) -> ImageData:
    return replace(SMALL, train_labels=torch.tensor(labels))


@pytest.mark.parametrize(
    ("wrong", "data", "message"),
    [
        ({"n_corrupted": 240}, DATA, "240 corrupted images were asked for, but learnable has 240; lower n_corrup"),
        (
            {"regularity": 0.5, "n_corrupted": 100},
            DATA,
            "the interclass swap needs 50 images of class 1, but learnable has 40; lower n_corrupted or name",
        ),
        (
            {"regularity": 0.5, "n_corrupted": 4},
            unbalanced([0] * 6 + [1] * 5 + [2]),
            "needs 2 images of class 2, but learnable has 1",
        ),
        ({"regularity": 0.5, "swap_classes": (1, 6)}, DATA, r"class 6 does not exist: learnable has classes 0\.\.5"),
        ({"regularity": 1.0, "target_class": 7}, DATA, r"class 7 does not exist: learnable has classes 0\.\.5"),
        ({"regularity": 1.0, "target_class": -1}, DATA, "class -1 does not exist"),
        (
            {"regularity": 1.0, "n_corrupted": 9},
            SMALL,
            "9 images are to be poisoned, but only 8 are free to be; lower n_corrupted",
        ),
        ({"regularity": 1.0, "patch": 9}, DATA, r"the trigger of 9 pixels is larger than the image \(8, 8\)"),
        ({"n_corrupted": 2}, replace(SMALL, train_labels=torch.zeros(12, dtype=torch.int64),
            test_labels=torch.zeros(6, dtype=torch.int64), classes=("all",)),
            "a wrong label needs at least two classes"),
    ],
)  # fmt: skip
def test_data_that_cannot_carry_the_task(wrong: dict[str, Any], data: ImageData, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        task(**wrong).build(data)


def test_classes_the_task_does_not_use_need_not_exist() -> None:
    random = CorruptionTask(n_corrupted=2, swap_classes=(30, 50), target_class=99)
    assert len(random.build(SMALL).truth.corrupted) == 2


def test_every_image_but_the_target_s_can_be_poisoned() -> None:
    problem = CorruptionTask(regularity=1.0, n_corrupted=8).build(SMALL)
    assert not problem.split.train.labels.any()


@pytest.mark.parametrize(("share", "discovery", "count"), [(0.2, 1.0, 5), (0.5, 0.5, 10), (0.9, 0.1, 18)])
def test_a_forget_list_that_is_partly_wrong(share: float, discovery: float, count: int) -> None:
    right, problem = build(discovery=discovery), build(discovery=discovery, mislisted=share)
    listed, truth = problem.split.forget_positions, problem.truth
    clean = listed[~torch.isin(listed, truth.corrupted)]
    assert len(clean) == count
    assert torch.equal(listed[torch.isin(listed, truth.corrupted)], right.split.forget_positions)
    assert torch.equal(truth.known, right.truth.known)
    assert len(clean) / len(listed) == pytest.approx(share)
    assert problem.training_key == right.training_key  # one original model for both
    assert problem.key != right.key
    assert not torch.isin(clean, problem.truth.sets["corrupted_known"].index).any()


def test_mislisted_images_are_drawn_from_the_seed() -> None:
    chosen = [build(seed=seed, mislisted=0.5).split.forget_positions.tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_list_may_not_hold_every_clean_image() -> None:
    task(mislisted=0.9).check(DATA)
    with pytest.raises(
        InvalidInput, match=r"266 clean images are to be on the forget list, .* has 220; lower"
    ):
        task(mislisted=0.93).check(DATA)
