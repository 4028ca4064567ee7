"""Validation images, held out of the training images before anything is built."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.examples import Examples
from expunge.data.images import ImageData, ImageSource, rank_in_class
from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs
from expunge.sweep.grid import Grid
from expunge.tasks.base import Task

SHARE = 0.1
"""Share of the training images that is held out for validation where the grid holds out none."""


@dataclass(frozen=True)
class Validation:
    """Held-out images.

    Args:
        given: what a method that needs unseen images is given.
        kept: what scores are taken on; no image of the forgotten concept.
        siblings: for sub-classes, those of the other sub-classes under the same label.
    """

    given: Examples | None
    kept: Examples
    siblings: Examples | None


def hold_out(grid: Grid, device: str) -> tuple[ImageData, Tensor | None, Tensor | None]:
    """Return the data with validation images apart and a blank test image.

    With it, the positions of the images that stayed, unless the grid itself counts its images without those
    held out; and the fine labels of the validation images, where there are some.
    """
    data = dataclasses.replace(grid.data, n_unseen=None).load(device)
    one = torch.zeros(1, dtype=torch.int64, device=data.train_labels.device)
    data = dataclasses.replace(
        data,
        test_images=torch.zeros_like(data.train_images[:1]),
        test_labels=one,
        test_fine=None if data.test_fine is None else one,
    )
    total = len(data.train_labels)
    positions = torch.arange(total, device=one.device)
    # The fine labels travel with the images; here they carry the positions.
    count = grid.data.n_unseen or max(1, round(SHARE * total))
    marked = dataclasses.replace(data, train_fine=positions).hold_out(count)
    kept = marked.train_fine
    assert kept is not None
    if not grid.data.n_unseen:
        for task in grid.tasks:
            task.check(data)
    fine = data.train_fine
    images = dataclasses.replace(marked, train_fine=None if fine is None else fine[kept])
    unseen_fine = None if fine is None else fine[~torch.isin(positions, kept)]
    return images, None if grid.data.n_unseen else kept, unseen_fine


def validation_for(method: Method, task: Task, images: ImageData, fine: Tensor | None) -> Validation:
    """Share the held-out part of ``images`` out; ``fine`` holds its fine labels, where there are some.

    Raises:
        InvalidInput: too few images.
    """
    assert images.unseen_images is not None
    assert images.unseen_labels is not None
    labels = images.unseen_labels
    source = ImageSource(images.unseen_images, images.mean, images.std)
    unseen = Examples.all_of(source, labels, len(images.classes))
    own, given = torch.ones_like(labels, dtype=torch.bool), None
    if Needs.UNSEEN in method.needs:
        own = rank_in_class(labels) % 2 == 0
        given = unseen.select(~own)
    held = dataclasses.replace(images, test_images=images.unseen_images, test_labels=labels, test_fine=fine)
    concept, beside = task.concept(held) or (torch.zeros_like(own), torch.zeros_like(own))
    siblings = unseen.select(own & beside)
    kept = unseen.select(own & ~concept)
    if not len(kept) or (given is not None and not len(given)):
        raise InvalidInput(
            f"{len(labels)} validation images are too few for the task {task.kind!r}: none is left outside the "
            "forgotten concept, or for the method; hold out more with n_unseen in [data]"
        )
    return Validation(given, kept, siblings if len(siblings) else None)
