"""Stratified folds for cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.errors import InvalidInput
from expunge.seeding import generator


def in_large_classes(labels: Tensor, folds: int) -> Tensor:
    """Return bool (N,), on the CPU: the examples of classes with one for each of ``folds`` at least.

    All of them where fewer than two such classes remain: :func:`stratified_folds` then says what is wrong.
    """
    labels = labels.cpu()
    large = torch.bincount(labels) >= folds
    return large[labels] if int(large.sum()) > 1 else torch.ones(len(labels), dtype=torch.bool)


def stratified_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return int64 (N,), on the CPU: the fold of each example, from 0.

    The numbers of examples of a class in two folds differ by one at most, and so do the folds' sizes.

    Args:
        labels: int64 (N,).
        folds: at least 2.
        seed: of the draw within each class.

    Raises:
        InvalidInput: fewer than two folds, labels of one class only, or a class with fewer examples than folds.
    """
    if folds < 2:
        raise InvalidInput(f"cross-validation needs at least 2 folds, got {folds}")
    labels = labels.cpu()
    classes, counts = torch.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InvalidInput(
            f"all {len(labels)} labels are of one class; label errors can be told among two classes at least"
        )
    small = counts < folds
    if bool(small.any()):
        first = int(small.nonzero()[0])
        least = int(counts.min())
        remedy = f"choose {least} folds, or " if least >= 2 else ""
        raise InvalidInput(
            f"{folds} folds need {folds} examples of each class, but class {int(classes[first])} has "
            f"{int(counts[first])} ({int(small.sum())} classes have too few); {remedy}take the rows of such classes out"
        )
    order = torch.randperm(len(labels), generator=generator(seed, "folds"))
    by_class = order[torch.sort(labels[order], stable=True).indices]
    fold = torch.empty(len(labels), dtype=torch.int64)
    # Dealt out class after class, so that one class's remainder is made up for by the next.
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold
