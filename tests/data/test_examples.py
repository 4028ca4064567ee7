from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from expunge.data.examples import (
    Batch,
    Examples,
    MappedSource,
    batch_count,
    check_labels,
    examples_from_dataset,
)
from expunge.data.images import Augmentation, ImageSource
from expunge.errors import DataError, InvalidInput


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, n_classes: int = 3, **settings: Any) -> Examples:
    """Examples whose every pixel is their row."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 1, 4, 4)
    source = ImageSource(images, (0.0,), (1 / 255,), **settings)
    return Examples.all_of(source, torch.arange(count) % n_classes, n_classes)


class Items:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


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


def test_a_mapped_source_stacks_the_items_asked_for() -> None:
    source = MappedSource(Items([(torch.full((2, 2), float(row)), 0, "extra") for row in range(5)]))
    assert len(source) == 5
    fetched = source.fetch(torch.tensor([4, 1]), None)
    assert torch.equal(fetched, torch.tensor([4.0, 1.0]).view(2, 1, 1).expand(2, 2, 2))


def test_a_mapped_source_refuses_unequal_shapes() -> None:
    source = MappedSource(Items([(torch.zeros(2, 2), 0), (torch.zeros(2, 2), 0), (torch.zeros(2, 3), 1)]))
    with pytest.raises(DataError, match=r"row 2 has \(2, 3\) and row 1 has \(2, 2\); resize them"):
        source.fetch(torch.tensor([1, 0, 2]), None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_mapped_source_refuses_nan_and_inf_by_row(value: float) -> None:
    bad = torch.zeros(2, 2)
    bad[1, 0] = value
    source = MappedSource(Items([(torch.zeros(2, 2), 0), (bad, 0), (torch.zeros(2, 2), 1), (bad, 1)]))
    assert source.fetch(torch.tensor([2, 0]), None).sum() == 0
    with pytest.raises(DataError, match="input 3 contains NaN or inf; remove or repair it"):
        source.fetch(torch.tensor([0, 3, 1]), None)


def test_integer_items_are_not_checked_for_nan() -> None:
    fetched = MappedSource(Items([(torch.tensor([3]), 0)])).fetch(torch.tensor([0]), None)
    assert fetched.tolist() == [[3]]


def with_attribute(name: str, value: Any) -> Items:
    """A dataset whose attribute says other labels than its items, as one with a target_transform has."""
    dataset = Items([(torch.zeros(1), label) for label in (2, 0, 1)])
    setattr(dataset, name, value)
    return dataset


class Endless(IterableDataset[Any]):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(1), 0)] * 3)


@pytest.mark.parametrize(
    "dataset",
    [
        with_attribute("targets", [0, 1, 2]),
        with_attribute("targets", ["cat", "dog", "owl"]),
        with_attribute("labels", pd.Series([0, 1], index=[7, 3])),
        TensorDataset(torch.zeros(3, 1), torch.tensor([2, 0, 1])),
        TensorDataset(torch.zeros(3, 1), torch.tensor([[2.0], [0.0], [1.0]])),
        Items([(torch.zeros(1), 2), (torch.zeros(1), torch.tensor(0)), (torch.zeros(1), np.uint64(1))]),
        Items([{"pixel_values": [0.0], "label": label} for label in (2, 0, 1)]),
    ],
)
def test_labels_are_those_of_the_items(dataset: Any) -> None:
    examples = examples_from_dataset(dataset, 3)
    assert examples.labels.tolist() == [2, 0, 1]
    assert examples.index.tolist() == [0, 1, 2]
    (batch,) = examples.batches(3)
    assert torch.equal(batch.x, torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (iter([1, 2]), "a map-style dataset .* is expected, got list_iterator"),
        (Items([]), "the training set is empty"),
        (Items([torch.zeros(())]), r"must be \(input, label\) pairs, but item 0 is a Tensor"),
        (Items([(torch.zeros(1), "cat")]), "row 0 of the dataset has label 'cat', expected whole numbers"),
        (Items([(torch.zeros(1), 0.5)]), "row 0 has label 0.5, expected whole numbers"),
        (Items([(torch.zeros(1), 0), (torch.zeros(1), [0, 1])]), r"row 1 has label \[0, 1\], expected whole"),
        (Items([(torch.zeros(1), 2**70)]), "row 0 has label 1180591620717411303424, expected"),
        (
            Items([{"a": 1, "label": 0}]),
            "items of the dataset hold a, label, but no 'inputs'; name the entry",
        ),
        ({0: (torch.zeros(1), 0)}, "a map-style dataset .* is expected, got dict"),
        (pd.DataFrame({"x": [0.5], "label": [0]}), "item 0 of the dataset cannot be read: KeyError: 0"),
        (Endless(), "a map-style dataset .* is expected, got Endless"),
        (Items([(torch.zeros(1), 3)]), r"labels must lie in 0\.\.2"),
    ],
)
def test_datasets_that_cannot_be_used_are_refused(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        examples_from_dataset(dataset, 3)


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
