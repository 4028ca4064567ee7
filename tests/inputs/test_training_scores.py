from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from expunge.data.joined import in_memory
from expunge.inputs.training_scores import best_class_order, chance, confusion, sample


def test_confusion_counts_by_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    labels, predictions = torch.randint(0, 4, (2, 200), generator=draw)
    expected = np.zeros((4, 4), dtype=int)
    for label, prediction in zip(labels.tolist(), predictions.tolist(), strict=True):
        expected[label, prediction] += 1
    assert (confusion(labels, predictions, 4) == expected).all()


def test_the_best_order_over_all_permutations() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (5, 5))
    best = max(sum(counts[i, order[i]] for i in range(5)) / counts.sum() for order in permutations(range(5)))
    assert best_class_order(counts).accuracy == pytest.approx(best)


def test_a_permutation_is_found() -> None:
    order = [2, 0, 1, 3]  # label i is logit order[i]
    counts = np.full((4, 4), 1)
    for label, logit in enumerate(order):
        counts[label, logit] = 20
    found = best_class_order(counts)
    assert (found.assigned, found.moved) == ((2, 0, 1, 3), (0, 1, 2))
    assert found.names(["a", "b", "c", "d"]) == ["b", "c", "a", "d"]


@pytest.mark.parametrize(
    "counts",
    [
        [[20, 0], [0, 20]],
        [[20, 0], [20, 0]],  # a constant prediction
        [[0, 20], [0, 20]],
        [[0, 4], [4, 0]],  # too few to tell
        [[10, 10], [10, 10]],
        [[9, 11], [8, 12]],
    ],
)
def test_what_is_no_permutation(counts: list[list[int]]) -> None:
    assert len(best_class_order(np.array(counts)).moved) < 2


def test_chance() -> None:
    assert chance(torch.tensor([0, 0, 0, 1]), 2) == 0.75
    assert chance(torch.tensor([0, 1, 2, 3]), 5) == 0.25
    assert chance(torch.tensor([], dtype=torch.int64), 5) == 0.2


def test_samples_keep_their_order() -> None:
    examples = in_memory(torch.randn(20, 2), torch.zeros(20, dtype=torch.int64), 1)
    found = sample(examples, 7, torch.Generator().manual_seed(0))
    assert len(found) == 7
    assert found.index.tolist() == sorted(found.index.tolist())
    assert sample(examples, 20, torch.Generator()) is examples
