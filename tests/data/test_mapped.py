from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from expunge.data.examples import Examples, read_labels
from expunge.data.joined import join
from expunge.data.mapped import MappedSource, examples_from_dataset
from expunge.data.reader import Reader
from expunge.errors import DataError

CACHES = ("none", "memory", "disk", "auto")


class Items:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


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


class Counted:
    """Rows of pixels; how often each is read is counted, by whichever process."""

    def __init__(self, count: int = 120, broken: int | None = None) -> None:
        draw = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(count, 1, 3, 3, generator=draw)
        self.reads = torch.zeros(count, dtype=torch.int64).share_memory_()
        self.broken = broken

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        self.reads[row] += 1
        if row == self.broken:
            raise OSError("the disk is gone")
        return self.inputs[row], row % 3


class Jittered(Counted):
    """The same with a transform that draws from one of the global generators."""

    def __init__(self, library: str, changes: float = 1.0) -> None:
        super().__init__(100)
        self.library, self.changes = library, changes

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        x, label = super().__getitem__(row)
        drawn = {
            "random": random.random,
            "numpy": np.random.random,
            "torch": lambda: torch.rand(()).item(),
            "own": np.random.default_rng().random,
        }[self.library]()
        return (x + drawn if drawn < self.changes else x), label


def passes(examples: Examples) -> list[Tensor]:
    """The inputs of three passes: in order, shuffled, and of a selection."""
    order = torch.Generator().manual_seed(3)
    some = examples.select(torch.arange(0, len(examples), 3))
    batches = (examples.batches(32), examples.batches(16, order), some.batches(16, order))
    return [torch.cat([batch.x for batch in each]) for each in batches]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_rows_are_the_same_whoever_reads_them_and_wherever_they_stay(cache: str, workers: int) -> None:
    dataset = Counted()
    examples = examples_from_dataset(dataset, 3, reader=Reader(workers=workers, cache=cache))
    assert examples.labels.tolist() == [row % 3 for row in range(120)]
    for _ in range(2):
        in_order, shuffled, some = passes(examples)
        assert torch.equal(in_order, dataset.inputs)
        order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
        assert torch.equal(shuffled, dataset.inputs[order])
        assert len(some) == 40
    assert not examples.augments


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_that_is_kept_is_read_once(cache: str, workers: int) -> None:
    dataset = Counted()
    examples = examples_from_dataset(dataset, 3, reader=Reader(workers=workers, cache=cache))
    looked_at = dataset.reads > 1  # by two readings, to see whether they differ
    assert int(looked_at.sum()) <= 8
    assert set(dataset.reads[~looked_at].tolist()) == {1}
    assert int(dataset.reads.max()) <= 4
    before = dataset.reads.clone()
    passes(examples)
    assert torch.equal(dataset.reads, before)


def test_without_a_cache_every_pass_reads() -> None:
    dataset = Counted()
    examples = examples_from_dataset(dataset, 3, reader=Reader(cache="none"))
    before = dataset.reads.clone()
    list(examples.batches(50))
    assert torch.equal(dataset.reads, before + 1)


@pytest.mark.parametrize("library", ["random", "numpy", "torch", "own"])
def test_random_transforms_are_noticed_and_go_on(library: str) -> None:
    with pytest.warns(UserWarning, match="draws random numbers, so its rows are read again") as said:
        examples = examples_from_dataset(Jittered(library), 3)
    assert len(said) == 1
    assert examples.augments
    first, again = (next(examples.batches(100)).x for _ in range(2))
    assert not torch.equal(first, again)


def test_a_transform_that_seldom_changes_anything_is_noticed() -> None:
    with pytest.warns(UserWarning, match="draws random numbers"):
        examples_from_dataset(Jittered("torch", changes=0.001), 3)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_who_says_what_to_keep_is_told_nothing(cache: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = examples_from_dataset(Jittered("numpy"), 3, reader=Reader(cache=cache))
    first, again = (next(examples.batches(100)).x for _ in range(2))
    assert torch.equal(first, again) == (cache == "memory")
    assert examples.augments == (cache == "none")


@pytest.mark.parametrize("library", ["random", "numpy", "torch"])
def test_random_transforms_are_the_same_for_every_number_of_workers(library: str) -> None:
    found = []
    for workers in (0, 1, 2):
        random.seed(workers)
        torch.manual_seed(workers)
        reader = Reader(workers=workers, cache="none")
        found.append(passes(examples_from_dataset(Jittered(library), 3, reader=reader)))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_leaves_the_global_generators_alone(workers: int) -> None:
    examples = examples_from_dataset(Jittered("torch"), 3, reader=Reader(workers=workers, cache="none"))
    drawn = []
    for reads in (False, True):
        torch.manual_seed(5)
        random.seed(5)
        if reads:
            list(examples.batches(30))
        drawn.append((torch.rand(3).tolist(), random.random()))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_fails_is_named_whoever_reads_it(workers: int) -> None:
    reader = Reader(workers=workers)
    said = "item 70 of the dataset cannot be read: OSError: the disk is gone"
    with pytest.raises(DataError, match=said):
        examples_from_dataset(Counted(broken=70), 3, reader=reader)
    dataset = Counted()
    examples = examples_from_dataset(dataset, 3, reader=Reader(workers=workers, cache="none"))
    dataset.broken = 70
    with pytest.raises(DataError, match=said):
        list(examples.batches(16))
    dataset.broken = None
    dataset.inputs[70, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="input 70 contains NaN"):
        list(examples.batches(16))


@pytest.mark.parametrize("workers", [0, 2])
def test_joined_parts_are_read_as_one(workers: int) -> None:
    dataset = Counted()
    examples = examples_from_dataset(dataset, 3, reader=Reader(workers=workers, cache="none"))
    both = join(examples, examples.select(torch.arange(5, 60, 5)))
    whole = torch.cat([dataset.inputs, dataset.inputs[5:60:5]])
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(3))
    read = torch.cat([batch.x for batch in both.batches(16, torch.Generator().manual_seed(3))])
    assert torch.equal(read, whole[order])


def test_inputs_of_several_lengths_are_not_kept() -> None:
    source = MappedSource(
        Items([(torch.arange(3 + row % 2), 0) for row in range(6)]), reader=Reader(cache="memory")
    )
    assert source.labels() == [0] * 6
    assert source.kept is None


def test_an_input_that_is_not_finite_is_not_kept_unseen() -> None:
    x = torch.zeros(20, 3)
    x[17, 1] = torch.nan
    with pytest.raises(DataError, match="input 17 contains NaN or inf"):
        examples_from_dataset(TensorDataset(x, torch.arange(20) % 2), 2)


def test_labels_alone_are_those_of_the_items() -> None:
    data = TensorDataset(torch.zeros(3, 2), torch.tensor([4, 0, 7]))
    data.targets = [1, 1, 1]  # type: ignore[attr-defined]
    assert torch.equal(read_labels(data), torch.tensor([4, 0, 7]))
    with pytest.raises(DataError, match="map-style"):
        read_labels(iter([1]))
