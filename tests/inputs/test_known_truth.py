from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.data.joined import in_memory
from expunge.errors import DataError
from expunge.inputs.forget_list import read_true_labels, read_truth
from expunge.inputs.training_data import TrainingData

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
        ("t.csv", "Index,True_Label\n3,dog\n2,dog\n1,dog\n0,cat\n"),
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
        DataError, match="column:human: row 3 has label 'cow', which is none of the classes cat, dog"
    ):
        read_truth("column:human", training(human=["cat", "dog", "dog", "cow"]))
    with pytest.raises(DataError, match="no such file"):
        read_truth(str(tmp_path / "absent.csv"), training())


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_by_name_by_position_and_in_order(named: TrainingData, tmp_path: Path) -> None:
    by_name = write(tmp_path, "a.csv", "file,true_label\nbee/1.png,ant\n5.png,bee\n")
    expected = [-1, -1, 0, -1, -1, 1]
    assert read_true_labels(by_name, named).tolist() == expected
    by_position = write(tmp_path, "b.csv", "index,clean_label,note\n2,0,x\n5,1,y\n3,,z\n")
    assert read_true_labels(by_position, named).tolist() == expected
    as_object = write(tmp_path, "c.json", '{"bee/1.png": "ant", "cat/deep/5.png": "bee"}')
    assert read_true_labels(as_object, named).tolist() == expected
    in_order = write(tmp_path, "d.tsv", "true_label\tx\n\t1\n\t1\nant\t1\n\t1\n\t1\nbee\t1\n")
    assert read_true_labels(in_order, named).tolist() == expected
    listed = write(tmp_path, "e.json", '[null, null, "ant", null, null, "bee"]')
    assert read_true_labels(listed, named).tolist() == expected
    other = write(tmp_path, "f.csv", "file,label\nbee/1.png,ant\ncat/deep/5.png,bee\n")
    found = read_true_labels(f"{other}?column=label", named)
    assert found.tolist() == expected


def test_a_column_with_gaps(named: TrainingData) -> None:
    data = replace(named, columns={"right": ["ant", "", None, "bee", "cat", "bee"]})
    assert read_true_labels("column:right", data).tolist() == [0, -1, -1, 1, 2, 1]
    with pytest.raises(DataError, match=r"no column 'rigth'; did you mean 'right'\?"):
        read_true_labels("column:rigth", data)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "file,true_label\nbee/1.png,wasp\n",
            r"bee/1.png has label 'wasp', which is none of the classes ant, bee",
        ),
        ("a.csv", "file,true_label\nbee/9.png,ant\n", r"1 of 1 names are not in the data"),
        ("a.csv", "index,true_label\n6,ant\n", r"row 6 is not in the data, which has 6 rows"),
        ("a.csv", "index,true_label\n1,ant\n1,bee\n", r"names a row more than once"),
        ("a.csv", "index,true_label\n1,\n", r"holds no true label"),
        (
            "a.csv",
            "index,is_bad\n1,1\n",
            r"holds no true labels: it was read as a list of bad rows; call their",
        ),
        ("a.csv", "true_label\nant\nbee\n", r"holds 2 labels, but the data has 6 rows; name the row of each"),
        ("a.json", "{", r"is no JSON"),
        ("a.json", "3", r"expected a list of positions"),
        (
            "a.json",
            '{"bee/1.png": "ant", "cat/4.png": 1}',
            "cat/4.png has label 1, .* others are names of classes",
        ),
        (
            "a.csv",
            "index,true_label\n1,ant\n2,1\n",
            "bee/1.png has label '1', .* others are names of classes",
        ),
        ("a.txt", "ant\n", "1 of 1 names are not in the data"),
    ],
)
def test_bad_label_files(named: TrainingData, tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_true_labels(write(tmp_path, name, text), named)


def test_a_missing_file(named: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_true_labels(str(tmp_path / "none.csv"), named)
