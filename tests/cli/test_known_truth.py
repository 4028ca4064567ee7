from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.cli.known_truth import read_truth
from expunge.data.joined import in_memory
from expunge.errors import DataError
from expunge.repair.training_data import TrainingData

LABELS = torch.tensor([0, 0, 1, 1])


def training(classes: tuple[str, ...] = ("cat", "dog"), **columns: list[object]) -> TrainingData:
    return TrainingData(in_memory(torch.randn(4, 2), LABELS, len(classes)), classes, columns=columns)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "cat\ndog\ndog\ndog\n"),
        ("t.txt", "0\n1\n1\n1\n"),
        ("t.json", json.dumps([0, 1, 1, 1])),
        ("t.csv", "index,true_label\n0,cat\n1,dog\n2,dog\n3,dog\n"),
        ("t.csv", "index,given_label,clean_label\n0,0,0\n1,0,1\n2,1,1\n3,1,1\n"),
        ("t.csv?column=human", "human,index\ncat,0\ndog,1\ndog,2\ndog,3\n"),
    ],
)
def test_true_labels(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name.partition("?")[0]).write_text(content)
    truth = read_truth(str(tmp_path / name), training())
    assert truth.labels is not None
    assert truth.labels.tolist() == [0, 1, 1, 1]
    assert truth.bad.tolist() == [False, True, False, False]
    assert "1 differ" in truth.note


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "1\n"),
        ("t.json", json.dumps([False, True, False, False])),
        ("t.csv", "index,is_label_issue\n0,False\n1,True\n2,False\n3,False\n"),
        ("t.csv?column=bad", "bad\n0\n1\n0\n0\n"),
    ],
)
def test_bad_rows(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name.partition("?")[0]).write_text(content)
    truth = read_truth(str(tmp_path / name), training())
    assert truth.labels is None
    assert truth.bad.tolist() == [False, True, False, False]
    assert "1 bad rows" in truth.note


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.array([0, 1, 1, 1], dtype=np.uint8))
    np.save(tmp_path / "rows.npy", np.array([1, 3]))
    labels = read_truth(str(tmp_path / "labels.npy"), training()).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 1, 1]
    assert read_truth(str(tmp_path / "rows.npy"), training()).bad.tolist() == [False, True, False, True]


def test_columns_of_the_data() -> None:
    data = training(is_bad=[0, 1, 0, 0], true_label=[0, 1, 1, 1], human=["cat", "dog", "dog", "dog"])
    assert read_truth("column:is_bad", data).labels is None
    for name in ("true_label", "human"):
        labels = read_truth(f"column:{name}", data).labels
        assert labels is not None
        assert labels.tolist() == [0, 1, 1, 1]


def test_bad_truths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'x'"):
        read_truth("column:x", training(y=[1, 2, 3, 4]))
    with pytest.raises(
        DataError, match="true label of row 3 is 'cow', which is none of the classes cat, dog"
    ):
        read_truth("column:human", training(human=["cat", "dog", "dog", "cow"]))
    with pytest.raises(DataError, match="no such file"):
        read_truth(str(tmp_path / "absent.csv"), training())
