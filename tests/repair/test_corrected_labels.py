from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from expunge.errors import DataError
from expunge.repair.corrected_labels import read_corrected_labels
from expunge.repair.training_data import TrainingData


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_by_name_by_position_and_in_order(named: TrainingData, tmp_path: Path) -> None:
    by_name = write(tmp_path, "a.csv", "file,true_label\nbee/1.png,ant\n5.png,bee\n")
    expected = [-1, -1, 0, -1, -1, 1]
    assert read_corrected_labels(by_name, named).labels.tolist() == expected
    by_position = write(tmp_path, "b.csv", "index,clean_label,note\n2,0,x\n5,1,y\n3,,z\n")
    assert read_corrected_labels(by_position, named).labels.tolist() == expected
    as_object = write(tmp_path, "c.json", '{"bee/1.png": "ant", "cat/deep/5.png": 1}')
    assert read_corrected_labels(as_object, named).labels.tolist() == expected
    in_order = write(tmp_path, "d.tsv", "true_label\tx\n\t1\n\t1\nant\t1\n\t1\n\t1\nbee\t1\n")
    assert read_corrected_labels(in_order, named).labels.tolist() == expected
    listed = write(tmp_path, "e.json", '[null, null, "ant", null, null, "bee"]')
    assert read_corrected_labels(listed, named).labels.tolist() == expected
    other = write(tmp_path, "f.csv", "file,label\nbee/1.png,ant\ncat/deep/5.png,bee\n")
    found = read_corrected_labels(f"{other}?column=label", named)
    assert found.labels.tolist() == expected
    assert found.known_among(torch.tensor([1, 2, 5])).tolist() == [2, 5]


def test_a_column_of_the_data(named: TrainingData) -> None:
    data = replace(named, columns={"right": ["ant", "", None, 1.0, "cat", "bee"]})
    assert read_corrected_labels("column:right", data).labels.tolist() == [0, -1, -1, 1, 2, 1]
    with pytest.raises(DataError, match=r"no column 'rigth'; did you mean 'right'\?"):
        read_corrected_labels("column:rigth", data)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "file,true_label\nbee/1.png,wasp\n",
            r"bee/1.png is 'wasp', which is none of the classes ant, bee",
        ),
        ("a.csv", "file,true_label\nbee/9.png,ant\n", r"1 of 1 names are not in the data"),
        ("a.csv", "index,true_label\n6,ant\n", r"row 6 is not in the data, which has 6 rows"),
        ("a.csv", "index,true_label\n1,ant\n1,bee\n", r"names a row more than once"),
        ("a.csv", "index,true_label\n1,\n", r"holds no true label"),
        ("a.csv", "index,is_bad\n1,1\n", r"no column of true labels; it has index, is_bad"),
        ("a.csv", "true_label\nant\nbee\n", r"holds 2 labels, but the data has 6 rows; name the row of each"),
        ("a.json", "{", r"is no JSON"),
        ("a.json", "3", r"expected an object"),
        ("a.txt", "ant\n", r"true labels are a .csv, .tsv or .json file"),
    ],
)
def test_bad_files(named: TrainingData, tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_corrected_labels(write(tmp_path, name, text), named)


def test_a_missing_file(named: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_corrected_labels(str(tmp_path / "none.csv"), named)
