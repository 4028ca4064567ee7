from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from expunge.data.mapped import MappedSource
from expunge.errors import DataError
from expunge.inputs.sources import load_dataset_object
from expunge.inputs.training_data import DataOptions


class Items(list[Any]):
    """A map-style dataset of what it is given."""


def load(dataset: Any, **options: Any) -> Any:
    return load_dataset_object(dataset, DataOptions(**options))


def test_pairs_stay_where_they_are() -> None:
    data = load(TensorDataset(torch.arange(6.0).reshape(3, 2), torch.tensor([1, 0, 1])))
    assert isinstance(data.examples.source, MappedSource)
    assert next(data.examples.batches(3)).x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (data.classes, data.named_classes) == (("0", "1"), False)


@pytest.mark.parametrize(
    "item", [{"input_ids": [5, 6], "label": 1}, {"x": torch.tensor([5, 6]), "y": 1}, ([5, 6], 1)]
)
def test_tokens_of_any_length_are_padded(item: Any) -> None:
    other = {**item} if isinstance(item, dict) else list(item)
    other[next(iter(item)) if isinstance(item, dict) else 0] = [7, 8, 9]
    data = load(Items([item, other]))
    assert next(data.examples.batches(2)).x.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert data.sequences


def test_names_of_entries_can_be_given() -> None:
    data = load(Items([{"a": [0.5], "b": 0}, {"a": [1.5], "b": 1}]), inputs=("a",), label="b")
    assert next(data.examples.batches(2)).x.tolist() == [[0.5], [1.5]]
    with pytest.raises(DataError, match="hold a, b, but no 'inputs'; name the entry with --inputs"):
        load(Items([{"a": [0.5], "b": 0}]))
    with pytest.raises(DataError, match="hold a, b, but no 'c'; name the entry with --label"):
        load(Items([{"a": [0.5], "b": 0}]), inputs=("a",), label="c")


def test_names_like_torchvisions(tmp_path: Path) -> None:
    dataset = Items([(torch.zeros(2), 0), (torch.ones(2), 1)])
    dataset.samples = [(str(tmp_path / "a" / "1.png"), 0), (str(tmp_path / "b" / "2.png"), 1)]  # type: ignore[attr-defined]
    dataset.root, dataset.classes = tmp_path, ["a", "b"]  # type: ignore[attr-defined]
    data = load(dataset)
    assert data.names == ("a/1.png", "b/2.png")
    assert (data.classes, data.named_classes) == (("a", "b"), True)
    dataset.filenames = ["x", "y"]  # type: ignore[attr-defined]
    assert load(dataset).names == ("x", "y")


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "the training set is empty"),
        ([(torch.zeros(2), 0), (torch.zeros(3), 1)], r"row 1 has \(3,\) and row 0 has \(2,\)"),
        ([(torch.zeros(2), 0), (torch.tensor([0, torch.nan]), 1)], "input 1 contains NaN"),
        ([(torch.zeros(1, 2, 2, dtype=torch.uint8), 0)], r"input 0 is uint8 \(1, 2, 2\), expected a float"),
        ([("a text", 0)], "input 0 is a str, expected a tensor"),
        ([(SimpleNamespace(), 0)], "input 0 is a SimpleNamespace"),
        ([([1, 2], 0), ([0.5], 1)], "input 1 is float32"),
        ([([1, 2], 0), ([-1], 1)], "input 1 is int64"),
        ([(torch.zeros(2), "a"), (torch.zeros(2), 1)], "row 1 has label 1 and others have text, such as 'a'"),
        ([(torch.zeros(2), 0.5)], "row 0 has label 0.5, expected whole numbers"),
        ([(torch.zeros(2), {})], "row 0 has label {}, expected whole numbers"),
        ([(torch.zeros(2), None)], "row 0 has no label"),
        ([(torch.zeros(2, 2).to_sparse(), 0)], "input 0 is a torch.sparse_coo tensor, expected a dense one"),
        ([(torch.zeros(2, device="meta"), 0)], "input 0 is a meta tensor"),
        ([(torch.zeros(2, dtype=torch.complex64), 0)], "input 0 is a complex tensor"),
        ([(torch.zeros(2), -1)], "label -1"),
    ],
)
def test_bad_items(items: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load(Items(items))


def test_no_map_style_dataset() -> None:
    with pytest.raises(DataError, match="a map-style dataset"):
        load(iter([(torch.zeros(2), 0)]))


class Noisy(Items):
    """Rows that differ each time they are read."""

    def __getitem__(self, row: Any) -> Any:
        x, label = super().__getitem__(row)
        return x + torch.rand(2), label


def test_rows_are_kept_but_where_they_differ_each_time() -> None:
    rows = [(torch.zeros(2), row % 2) for row in range(20)]
    kept = load(Items(rows))
    assert kept.notes == ()
    assert kept.examples.source.kept.shape == (20, 2)
    noisy = load(Noisy(rows))
    assert "draws random numbers" in noisy.notes[0]
    assert noisy.examples.source.kept is None
    assert load(Noisy(rows), cache="none").notes == ()
    frozen = load(Noisy(rows), cache="memory").examples
    assert torch.equal(next(frozen.batches(20)).x, next(frozen.batches(20)).x)
