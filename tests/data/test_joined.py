from __future__ import annotations

import pytest
import torch

from expunge.data.examples import Examples
from expunge.data.images import Augmentation, ImageSource
from expunge.data.joined import in_memory, join
from expunge.errors import InvalidInput


def images(count: int, value: int) -> Examples:
    pixels = torch.full((count, 1, 4, 4), value, dtype=torch.uint8)
    source = ImageSource(pixels, (0.0,), (1.0,), Augmentation(pad=2))
    return Examples.all_of(source, torch.zeros(count, dtype=torch.int64), 3)


def test_rows_come_from_their_parts_in_any_order() -> None:
    first = in_memory(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]), 3)
    second = in_memory(torch.arange(10.0, 14.0).view(2, 2), torch.tensor([2, 0]), 3).select(torch.tensor([1]))
    both = join(first, second)
    assert both.labels.tolist() == [0, 1, 2, 0]
    fetched = both.source.fetch(torch.tensor([3, 0, 2]), None)
    assert fetched.tolist() == [[12.0, 13.0], [0.0, 1.0], [4.0, 5.0]]


def test_only_parts_that_may_be_are_augmented() -> None:
    both = join(images(64, 255), images(64, 255), augment=(True, False))
    inputs = both.source.fetch(torch.arange(128), torch.Generator().manual_seed(0))
    whole = (inputs == 1).flatten(1).all(1)
    assert not bool(whole[:64].all())  # shifted images have a black border
    assert bool(whole[64:].all())


def test_refusals() -> None:
    few, more = (
        in_memory(torch.zeros(1, 2), torch.tensor([0]), 2),
        in_memory(torch.zeros(1, 2), torch.tensor([0]), 3),
    )
    with pytest.raises(InvalidInput, match=r"one number of classes are expected, got \[\(1, 2\), \(1, 3\)\]"):
        join(few, more)
    with pytest.raises(InvalidInput, match=r"rows must lie in 0\.\.0"):
        join(few).source.fetch(torch.tensor([], dtype=torch.int64), None)
