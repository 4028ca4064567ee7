from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.data.examples import Batch, Examples, batch_count, check_labels
from expunge.data.images import Augmentation, ImageSource
from expunge.errors import DataError, InvalidInput


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, n_classes: int = 3, **settings: Any) -> Examples:
    """Examples whose every pixel is their row."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 1, 4, 4)
    source = ImageSource(images, (0.0,), (1 / 255,), **settings)
    return Examples.all_of(source, torch.arange(count) % n_classes, n_classes)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("size", [1, 4, 11, 100])
def test_batches_cover_each_example_once_with_its_index_and_label(size: int, shuffled: bool) -> None:
    batches = list(numbered(11).batches(size, generator() if shuffled else None))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(11))
    assert (index.tolist() == list(range(11))) is not shuffled
    for batch in batches:
        assert torch.equal(batch.x, batch.index.float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4))
        assert torch.equal(batch.y, batch.index % 3)


def test_batches_of_a_selection_carry_its_rows() -> None:
    rows = [9, 3, 7, 4, 0]
    batches = list(numbered(11).select(torch.tensor(rows)).batches(2))
    assert torch.cat([batch.index for batch in batches]).tolist() == rows
    assert torch.cat([batch.x[:, 0, 0, 0] for batch in batches]).tolist() == rows
    assert torch.cat([batch.y for batch in batches]).tolist() == [row % 3 for row in rows]


def test_the_order_is_that_of_the_generator() -> None:
    examples = numbered(50)

    def order(draws: torch.Generator) -> list[int]:
        return torch.cat([batch.index for batch in examples.batches(8, draws)]).tolist()

    assert order(generator(1)) == order(generator(1))
    assert order(generator(1)) != order(generator(2))
    draws = generator(1)
    assert order(draws) != order(draws)  # another epoch, another order


def test_augmentation_only_on_request() -> None:
    examples = numbered(20, augmentation=Augmentation(pad=3))
    plain = next(iter(examples.batches(20, generator(1))))
    augmented = next(iter(examples.batches(20, generator(1), augment=True)))
    again = next(iter(examples.batches(20, generator(1), augment=True)))
    assert torch.equal(plain.x, plain.index.float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4))
    assert torch.equal(plain.index, augmented.index)
    assert not torch.equal(plain.x, augmented.x)
    assert torch.equal(augmented.x, again.x)


def test_batches_refuse_what_they_cannot_do() -> None:
    with pytest.raises(InvalidInput, match="batch size must be at least 1, got 0"):
        next(numbered(3).batches(0))
    with pytest.raises(InvalidInput, match="augmentation draws random numbers: pass a generator"):
        next(numbered(3).batches(2, augment=True))


def test_selecting_nothing_leaves_nothing_to_batch() -> None:
    nothing = numbered(5).select(torch.zeros(5, dtype=torch.bool))
    assert len(nothing) == 0
    assert sum(len(batch) for batch in nothing.batches(4)) == 0


@pytest.mark.parametrize(
    "positions", [torch.tensor([7, 2, 4]), torch.tensor([i in (2, 4, 7) for i in range(10)])]
)
def test_selecting_keeps_index_and_label(positions: Tensor) -> None:
    examples = numbered(10)
    chosen = examples.select(positions)
    expected = [7, 2, 4] if positions.dtype == torch.int64 else [2, 4, 7]
    assert chosen.index.tolist() == expected
    assert chosen.labels.tolist() == [row % 3 for row in expected]
    assert chosen.source is examples.source
    last = chosen.select(torch.tensor([2]))
    assert last.index.tolist() == expected[2:]
    (batch,) = last.batches(5)
    assert torch.equal(batch.x, torch.full((1, 1, 4, 4), float(expected[2])))
    assert examples.index.tolist() == list(range(10))


def test_relabelling_keeps_index_and_inputs() -> None:
    examples = numbered(6).select(torch.tensor([5, 1]))
    changed = examples.relabel(torch.tensor([0, 2], dtype=torch.uint8))
    assert changed.labels.tolist() == [0, 2]
    assert changed.labels.dtype == torch.int64
    assert changed.index.tolist() == [5, 1]
    assert changed.source is examples.source
    assert examples.labels.tolist() == [2, 1]


def test_taking_part_of_a_batch() -> None:
    batch = Batch(torch.arange(8.0).view(4, 2), torch.arange(4), torch.arange(10, 14))
    for positions in (torch.tensor([1, 3]), torch.tensor([False, True, False, True])):
        part = batch.take(positions)
        assert len(part) == 2
        assert part.x.tolist() == [[2.0, 3.0], [6.0, 7.0]]
        assert part.y.tolist() == [1, 3]
        assert part.index.tolist() == [11, 13]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, 1, 5], r"labels must lie in 0\.\.2, but 2 do not \(the first is 3 at position 1\)"),
        ([0, 1, -1], r"labels must lie in 0\.\.2, but 1 do not \(the first is -1 at position 2\)"),
    ],
)
def test_labels_out_of_range_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_labels(torch.tensor(labels), 3)
    with pytest.raises(DataError, match=message):
        numbered(len(labels)).relabel(torch.tensor(labels))


def test_labels_in_range_pass() -> None:
    check_labels(torch.tensor([0, 2]), 3)
    check_labels(torch.tensor([], dtype=torch.int64), 3)


def test_labels_and_index_must_match() -> None:
    source = numbered(4).source
    with pytest.raises(InvalidInput, match=r"of one length, got \(3,\) and \(4,\)"):
        Examples(source, torch.zeros(3, dtype=torch.int64), torch.arange(4), 2)
    with pytest.raises(InvalidInput, match=r"must be 1-D .* got \(4, 1\) and \(4, 1\)"):
        Examples(source, torch.zeros(4, 1, dtype=torch.int64), torch.arange(4)[:, None], 2)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])],
)
def test_a_shuffled_pass_does_not_end_in_one_example(count: int, size: int, sizes: list[int]) -> None:
    batches = list(numbered(count).batches(size, generator()))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(count))
    assert batch_count(count, size) == len(sizes)
    in_order = [len(batch) for batch in numbered(count).batches(size)]
    assert in_order == [min(size, count - start) for start in range(0, count, size)]
