from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from expunge.data.joined import in_memory
from expunge.detection.issue_table import write_issue_table
from expunge.detection.result import Detection, combine
from expunge.errors import DataError, InvalidInput, StoreError
from expunge.inputs.forget_list import read_forget_list
from expunge.inputs.training_data import TrainingData

LABELS = torch.tensor([0, 1, 1, 0])
CLASSES = ("cat, small", "dog")
NAMES = ("a.png", "b.png", "c,d.png", "e.png")


def write(
    path: Path, flagged: tuple[bool, ...] = (False, True, True, False), **settings: object
) -> list[Detection]:
    first = Detection.of(
        "labels", torch.tensor([0.1, 0.9, 0.2, 0.3]), torch.tensor(flagged), LABELS, 2,
        suggested=torch.tensor([-1, 0, -1, -1]),
    )  # fmt: skip
    second = Detection.of("spectral", torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor(flagged), LABELS, 2)
    found = [first, second]
    write_issue_table(path, found, combine(found, LABELS), LABELS, CLASSES, **settings)  # type: ignore[arg-type]
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_example(tmp_path: Path) -> None:
    path = tmp_path / "made" / "list.csv"
    write(path, names=NAMES, true_labels=torch.tensor([0, 0, 1, 0]))
    found = rows(path)
    assert [row["index"] for row in found] == ["0", "1", "2", "3"]
    assert found[1] == {
        "index": "1",
        "name": "b.png",
        "is_label_issue": "True",
        "score": "0.75",
        "detector": "labels+spectral",
        "given_label": "dog",
        "suggested_label": "cat, small",
        "true_label": "cat, small",
        "score_labels": "0.9",
        "score_spectral": "2",
    }
    assert found[2]["suggested_label"] == ""  # flagged, and no label is suggested
    assert found[0]["suggested_label"] == "cat, small"  # not flagged: the stored one
    assert found[0]["detector"] == ""


@pytest.mark.parametrize("names", [(), NAMES])
def test_it_is_read_as_a_forget_list(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "list.csv"
    write(path, names=names)
    data = TrainingData(in_memory(torch.randn(4, 2), LABELS, 2), CLASSES, names)
    read = read_forget_list(str(path), data)
    assert read.positions.tolist() == [1, 2]
    assert read.form == "marks"
    swapped = TrainingData(in_memory(torch.randn(4, 2), 1 - LABELS, 2), CLASSES, names)
    with pytest.raises(DataError, match="was made for other labels"):
        read_forget_list(str(path), swapped)


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="names: one for each of the 4 examples is expected, got 1"):
        write(tmp_path / "a.csv", names=("one",))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .*; name another file with --out"):
        write(tmp_path / "file" / "a.csv")
