from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.errors import DataError, InvalidInput
from expunge.inputs.forget_list import ForgetList, read_forget_list
from expunge.inputs.row_keys import printable
from expunge.inputs.training_data import TrainingData


def listed(path: Path, content: Any, data: TrainingData, column: str = "") -> ForgetList:
    if path.suffix == ".npy":
        np.save(path, content, allow_pickle=True)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_forget_list(f"{path}?column={column}" if column else str(path), data)


ISSUES = (
    ",is_label_issue,label_quality,given_label,predicted_label\n0,False,0.9,0,0\n1,True,0.1,0,2\n"
    "2,False,0.9,1,1\n3,False,0.9,1,1\n4,False,0.9,2,2\n5,True,0.2,2,0\n"
)


@pytest.mark.parametrize(
    ("name", "content", "expected", "form"),
    [
        ("a.txt", "5\n1  # why\n\n# all\n", [1, 5], "positions"),
        ("a.txt", "cat/4.png\nant/1.png\n", [0, 4], "names"),
        ("a.txt", "3.png\n5.png\n./ant/1.png\n", [0, 3, 5], "names"),
        ("a.txt", "deep/5.png\n/data/train/bee/1.png\n", [2, 5], "names"),
        ("a.txt", "cat\\4.png\r\nant\\1.png\r\n", [0, 4], "names"),
        ("a.csv", "1\n5\n", [1, 5], "positions"),
        ("a.csv", "index\n1\n0\n", [0, 1], "positions"),
        ("a.csv", '\ufefffile,reason\ncat/4.png,"dark, small"\n', [4], "names"),
        ("a.csv", "cat/4.png\n3.png\n", [3, 4], "names"),
        ("a.csv", "forget\n5\n3\n", [3, 5], "positions"),
        ("a.csv", "x,is_bad\n1,no\n2,yes\n3,no\n4,no\n5,no\n6,YES\n", [1, 5], "marks"),
        ("a.csv", ISSUES, [1, 5], "positions"),
        ("a.csv", "index,is_bad\n5,1\n2,0\n3,1\n", [3, 5], "positions"),
        ("a.csv", "file,is_bad\ncat/4.png,True\n3.png,False\n", [4], "names"),
        ("a.tsv", "a\tpath\n1\tbee/3.png\n", [3], "names"),
        ("a.json", [5, 1], [1, 5], "positions"),
        ("a.json", ["cat/4.png"], [4], "names"),
        ("a.json", {"why": "x", "rows": [2]}, [2], "positions"),
        ("a.json", [False, True, False, False, False, False], [1], "marks"),
        ("a.npy", np.array([5, 1], dtype=np.int32), [1, 5], "positions"),
        ("a.npy", np.array([False, True, False, False, False, True]), [1, 5], "marks"),
        ("a.npy", np.array(["cat/4.png"]), [4], "names"),
    ],
)
def test_forms(
    tmp_path: Path, named: TrainingData, name: str, content: Any, expected: list[int], form: str
) -> None:
    found = listed(tmp_path / name, content, named)
    assert (found.positions.tolist(), found.form) == (expected, form)
    assert str(found.positions.dtype) == "torch.int64"
    assert sum(found.per_class.values()) == len(expected)


NAMES = ("cat/shot #1.png", "cat/shot #2.png", "00042", "7", "a, b/1.png", "cafe\u0301/1.png")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "cat/shot #2.png\nshot #1.png  # why\n# shot #1.png, too?\n", [0, 1]),
        ("a.txt", "caf\u00e9/1.png\n", [5]),
        ("a.csv", "file\n00042\n7\n", [2, 3]),
        ("a.csv", "File\n7\n", [3]),
        ("a.csv", "index\n4\n2\n", [2, 4]),
        ("a.csv", "a, b/1.png\nshot #2.png\n", [1, 4]),
        ("a.csv", "name\na, b/1.png\n00042\n", [2, 4]),
        ("a.csv", "shot #1.png\nshot #2.png\n", [0, 1]),
        ("a.csv", "index,is_bad\n2,1\n1,0\n", [2]),
        ("a.csv", "file,is_bad\n7,1\n00042,0\n", [3]),
        ("a.csv", "index\n4.0\n2.0\n", [2, 4]),
        ("a.json", ["7", "00042"], [2, 3]),
        ("a.json", [4, 2], [2, 4]),
        ("a.npy", np.array(["00042"]), [2]),
    ],
)
def test_names_go_before_the_grammar_of_a_file(
    tmp_path: Path, named: TrainingData, name: str, content: Any, expected: list[int]
) -> None:
    assert listed(tmp_path / name, content, replace(named, names=NAMES)).positions.tolist() == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            "shots\n1\n",
            "'shots' in the first line is no row of the data, and no title .*a.csv.column=TITLE",
        ),
        ("a.csv", "dog/9.png\n7\n", "'dog/9.png' in the first line is no row"),
        ("a.txt", "3\n7\n", "'7' is a position, and the name of row 3 too; .*column is called index or file"),
        ("a.txt", "7#1.png\n", "1 of 1 names are not in the data"),
        ("a.csv", "file\n42\n", "names are not in the data .*did you mean '00042'"),
        ("a.csv", "index,index\n1,2\n", "two columns 'index'"),
        ("a.csv", "is_bad\n" + "a" * 200_000 + "\n", "field larger than field limit"),
        ("a.csv", "file\n" + "a" * 100_000 + "\n", "1 of 1 names are not in the data"),
        ("a.json", "[" * 100_000, "is no JSON"),
        ("a.txt", b"caf\xe9/1.png\n", "is not UTF-8"),
    ],
)
def test_keys_that_cannot_be_read(
    tmp_path: Path, named: TrainingData, name: str, content: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as raised:
        listed(tmp_path / name, content, replace(named, names=NAMES))
    assert len(str(raised.value)) < 800


def test_a_name_that_is_no_utf8(tmp_path: Path, named: TrainingData) -> None:
    names = (printable(b"caf\xe9/1.png".decode("utf-8", "surrogateescape")), *NAMES[1:])
    assert names[0] == "caf\\xe9/1.png"
    data = replace(named, names=names)
    assert listed(tmp_path / "a.txt", b"caf\xe9/1.png\n", data).positions.tolist() == [0]
    assert listed(tmp_path / "b.txt", names[0], data).positions.tolist() == [0]


def test_a_row_of_a_longer_path_is_no_comment(tmp_path: Path, named: TrainingData) -> None:
    flat = replace(named, names=("1.png", "2.png", "3.png", "4.png", "5.png", "6.png"))
    assert listed(tmp_path / "a.txt", "2.png  # as in b/1.png\n# b/4.png\n", flat).positions.tolist() == [1]
    text = "index,file\n1,b/2.png\n2,b/3.png\n"
    assert listed(tmp_path / "a.csv", text, flat).positions.tolist() == [1, 2]


def test_the_report(tmp_path: Path, named: TrainingData) -> None:
    found = listed(tmp_path / "a.csv", "x,doubt\n" + "a,0\na,1\na,0\na,1\na,1\na,0\n", named, "doubt")
    assert found.per_class == {"ant": 1, "bee": 1, "cat": 1}
    assert found.notes == ("read from column 'doubt' of a.csv",)


def test_a_column_of_the_data(named: TrainingData) -> None:
    assert read_forget_list("column:is_bad", named).positions.tolist() == [1, 5]
    with pytest.raises(
        DataError, match="no column 'is_bat'; did you mean 'is_bad'\\?; it has is_bad, weight"
    ):
        read_forget_list("column:is_bat", named)
    with pytest.raises(DataError, match=r"column 'weight' of the data holds 0\.5, expected true or false"):
        read_forget_list("column:weight", named)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "", "the forget set is empty"),
        ("a.txt", "# nothing\n", "the forget set is empty"),
        ("a.txt", "1\n1\n2\n", r"1 forget indices are repeated \(the first is 1\)"),
        ("a.txt", "1\n6\n7\n", r"must lie in 0\.\.5, but 2 do not \(the first is 6\)"),
        ("a.txt", "-1\n", r"must lie in 0\.\.5, but 1 do not"),
        ("a.txt", "99999999999999999999\n", "99999999999999999999, which is no position"),
        ("a.txt", "0\n1\n2\n3\n4\n5\n", "all of the 6 training examples"),
        (
            "a.txt",
            "cat/9.png\ncat/4.png\n",
            r"1 of 2 names .*the first is 'cat/9\.png'; did you mean 'cat/4\.png'",
        ),
        ("a.txt", "1.png\n", r"'1\.png' is the name of 2 files \(ant/1\.png, bee/1\.png\)"),
        ("a.txt", "cat/4.png\n4.png\n", r"names 1 rows more than once \(the first is 'cat/4\.png'\)"),
        ("a.txt", "cat/4.png\n3\n", "1 of 2 names are not in the data .*the first is '3'"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.csv", "", "the forget set is empty"),
        ("a.csv", "x,y\n1,2\n", "which column names the rows is not clear; it has x, y"),
        ("a.csv", "x,is_bad\n1,no\n2\n", "line 3: 1 cells, but the header has 2"),
        ("a.csv", "x,is_bad\n1,no\n2,maybe\n", "column 'is_bad' holds 'maybe'"),
        ("a.csv", "x,is_bad\n1,no\n2,yes\n", "marks 2 rows, but the data has 6"),
        ("a.csv", "is_bad\n" + "no\n" * 6, "marks no row"),
        ("a.csv", "index,is_bad\n4,no\n5,no\n", "marks no row"),
        (
            "a.csv",
            ISSUES.replace("2,False,0.9,1,1", "2,False,0.9,0,1"),
            "1 of 6 differ .*row 2 is 0 there and bee",
        ),
        ("a.json", "[1, 2", "is no JSON: .*truncated"),
        ("a.json", {"a": [1], "b": [2]}, r"2 lists \(a, b\)"),
        ("a.json", 3, "expected a list"),
        ("a.json", [1.5], "expected a list"),
        ("a.json", ["cat/4.png", 3], "mixes names with 3"),
        ("a.npy", np.zeros((2, 2), int), r"holds int64 \(2, 2\)"),
        ("a.npy", np.zeros(6), r"holds float64 \(6,\)"),
        ("a.npy", np.array([{}], dtype=object), "truncated or holds objects"),
        ("a.npy", np.array([True, False]), "marks 2 rows, but the data has 6"),
        ("a.xlsx", "", r"a forget list is a \.txt, \.csv"),
    ],
)
def test_bad_lists(tmp_path: Path, named: TrainingData, name: str, content: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        listed(tmp_path / name, content, named)


def test_bad_paths_and_columns(tmp_path: Path, named: TrainingData) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_forget_list(str(tmp_path / "gone.txt"), named)
    with pytest.raises(DataError, match="no column 'doubts'; did you mean 'doubt'"):
        listed(tmp_path / "a.csv", "x,doubt\n1,2\n", named, "doubts")
    with pytest.raises(DataError, match=r"only a \.csv or \.tsv file has columns"):
        listed(tmp_path / "a.txt", "1\n", named, "doubt")
    with pytest.raises(DataError, match="has no setting 'col'"):
        read_forget_list("a.csv?col=x", named)
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="truncated"):
        read_forget_list(str(tmp_path / "a.npy"), named)


def test_rows_without_names(tmp_path: Path, named: TrainingData) -> None:
    with pytest.raises(DataError, match="the rows of this data have no names; give positions from 0 to 5"):
        listed(tmp_path / "a.txt", "cat/4.png\n", replace(named, names=()))


def test_labels_of_an_issue_table_may_be_names(tmp_path: Path, named: TrainingData) -> None:
    rows = zip(range(6), ["ant", "ant", "bee", "bee", "cat", "cat"], strict=True)
    text = "row,is_label_issue,given_label\n" + "".join(f"{i},{i == 3},{label}\n" for i, label in rows)
    assert listed(tmp_path / "a.csv", text, named).positions.tolist() == [3]
