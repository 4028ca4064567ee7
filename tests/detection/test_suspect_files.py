from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from expunge.data.joined import in_memory
from expunge.detection.result import Detection, combine
from expunge.detection.suspect_files import Rows, write_scores, write_suspects
from expunge.detection.suspects import Suspects
from expunge.detection.wrong_labels import WrongLabels
from expunge.errors import DataError, StoreError
from expunge.inputs.forget_list import read_forget_list, read_true_labels
from expunge.inputs.training_data import TrainingData

LABELS = torch.tensor([0, 1, 1, 0])
CLASSES = ("cat, small", "dog")
NAMES = ("a.png", "b.png", "c,d.png", "e.png")
KNOWN = torch.tensor([False, False, False, True])


def suspects(usable: bool = True) -> Suspects:
    """Rows 2 and 1 by their labels, the former the more suspicious, and row 3, which was known."""
    first = Detection.of(
        "labels", torch.tensor([0.1, 0.8, 0.9, 0.3]), torch.tensor([False, True, True, False]), LABELS, 2,
        suggested=torch.tensor([-1, 0, -1, -1]),
    )  # fmt: skip
    known = Detection.of("known", KNOWN.double(), KNOWN, LABELS, 2)
    together = Detection.of(
        "labels+known", first.scores, first.flagged | KNOWN, LABELS, 2, suggested=first.suggested
    )
    return Suspects((first, known), together, KNOWN, WrongLabels(first, 2.0, 0.5, None, usable))


def write(path: Path, usable: bool = True, **more: Any) -> list[dict[str, str]]:
    write_suspects(path, suspects(usable), Rows(LABELS, CLASSES, **more))
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_suspects_alone_the_worst_first(tmp_path: Path) -> None:
    nearest = torch.tensor([[0, 3], [0, -1], [-1, -1]])
    found = write(
        tmp_path / "made" / "a.csv", names=NAMES, true_labels=torch.tensor([0, 0, -1, 0]), nearest=nearest
    )
    assert [row["index"] for row in found] == ["2", "1", "3"]
    assert found[1] == {
        "index": "1",
        "name": "b.png",
        "is_label_issue": "True",
        "score": "0.8",
        "detector": "labels",
        "given_label": "dog",
        "suggested_label": "cat, small",
        "true_label": "cat, small",
        "nearest": "0",
    }
    assert [row["detector"] for row in found] == ["labels", "labels", "known"]
    assert (found[0]["suggested_label"], found[0]["true_label"]) == ("", "")


def test_a_list_that_is_none_marks_only_what_was_known(tmp_path: Path) -> None:
    assert [row["is_label_issue"] for row in write(tmp_path / "a.csv", usable=False)] == [
        "False",
        "False",
        "True",
    ]


def test_the_scores_of_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(LABELS, CLASSES, NAMES)
    if importlib.util.find_spec("pyarrow") is not None:
        path = write_scores(tmp_path / "a.csv", suspects(), rows)
        assert path.name == "a.scores.parquet"
        assert pd.read_parquet(path)["score_labels"].tolist() == pytest.approx([0.1, 0.8, 0.9, 0.3])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    table = pd.read_csv(write_scores(tmp_path / "a.csv", suspects(), rows))
    assert table["name"].tolist() == list(NAMES)
    assert table["is_label_issue"].tolist() == [False, True, True, True]


@pytest.mark.parametrize("names", [(), NAMES])
def test_clean_reads_it(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "list.csv"
    write(path, names=names, true_labels=torch.tensor([0, 0, -1, 1]))
    data = TrainingData(in_memory(torch.randn(4, 2), LABELS, 2), CLASSES, names)
    assert read_forget_list(str(path), data).positions.tolist() == [1, 2, 3]
    assert read_true_labels(str(path), data).tolist() == [-1, 0, -1, 1]
    swapped = TrainingData(in_memory(torch.randn(4, 2), 1 - LABELS, 2), CLASSES, names)
    with pytest.raises(DataError, match="was made for other labels: 3 of 3 differ"):
        read_forget_list(str(path), swapped)


def test_the_first_rows_in_order_are_no_table_of_all_rows(tmp_path: Path) -> None:
    """The rows 0 and 1 of four, in this order, once stood for one mark a row."""
    path = tmp_path / "list.csv"
    path.write_text("index,is_label_issue,given_label\n0,True,dog\n1,False,dog\n")
    data = TrainingData(in_memory(torch.randn(4, 2), torch.tensor([1, 1, 0, 0]), 2), CLASSES)
    assert read_forget_list(str(path), data).positions.tolist() == [0]


def test_bad_requests(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .*; name another file with --out"):
        write(tmp_path / "file" / "a.csv")
    assert combine(suspects().found, LABELS).positions.tolist() == [1, 2, 3]
