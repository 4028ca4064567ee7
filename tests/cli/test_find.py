from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from expunge.cli.find import find_command
from expunge.errors import ExpungeError, InvalidInput, StoreError, UnknownName
from expunge.inputs.forget_list import read_forget_list
from expunge.inputs.sources import load_training_data
from expunge.models.mlp import MLP

pytest.importorskip("cleanlab")
app = typer.Typer()
app.command()(find_command)

CLASSES = ("ant", "bee", "cat")
ARCH = "expunge:mlp?hidden=16&activation=relu"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ninety images whose bright corner is the class; rows 0, 1 and 2 bear the label of the next class."""
    draw = np.random.default_rng(0)
    true = np.arange(90) % 3
    images = draw.integers(0, 60, (90, 8, 8), dtype=np.uint8)
    for row, label in enumerate(true):
        images[row, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
    labels = true.copy()
    labels[:3] = (labels[:3] + 1) % 3
    path = tmp_path / "corners.npz"
    np.savez(
        path, images=images, labels=labels, true_label=true, is_bad=labels != true, classes=np.array(CLASSES)
    )
    return path


@pytest.fixture
def checkpoint(data: Path) -> Path:
    """An MLP that has learned the images."""
    training = load_training_data(str(data)).examples
    torch.manual_seed(0)
    model = MLP(1, 8, 3, 16, "relu")
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    batch = next(training.batches(90))
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimiser.step()
    path = data.with_name("model.pt")
    torch.save(model.state_dict(), path)
    return path


def run(data: Path, *more: str) -> str:
    arguments = [
        "--data",
        str(data),
        "--arch",
        ARCH,
        "--device",
        "cpu",
        "--folds",
        "3",
        "--epochs",
        "40",
        "--batch-size",
        "16",
        "--lr",
        "0.01",
    ]
    if "--out" not in more:
        arguments += ["--out", str(data.with_name("list.csv"))]
    result = CliRunner().invoke(app, [*arguments, *more], env={"COLUMNS": "120"})
    if isinstance(result.exception, ExpungeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.trains
def test_wrong_labels_are_found_measured_and_written(data: Path) -> None:
    shown = run(data, "--truth", "column:true_label")
    out = data.with_name("list.csv")
    assert "without --checkpoint, poison is not looked for" in shown
    assert "read as 90 true labels: 3 differ" in shown
    assert f"expunge clean --forget {out}".replace("\n", "") in shown.replace("\n", "")
    rows = table(out)
    flagged = [row for row in rows if row["is_label_issue"] == "True"]
    assert {row["index"] for row in flagged} == {"0", "1", "2"}
    assert all(row["suggested_label"] == row["true_label"] for row in rows)
    summary = json.loads(out.with_suffix(".json").read_text())
    assert summary["together"]["precision"] == 1.0
    assert summary["together"]["recall"] == 1.0
    assert summary["detectors"]["labels"]["n_flagged"] == 3
    assert summary["settings"]["batch_size"] == 16
    assert read_forget_list(str(out), load_training_data(str(data))).positions.tolist() == [0, 1, 2]
    assert not data.with_name(".list.folds").exists()


def test_a_class_of_one_row_does_not_stop_the_others(tmp_path: Path, data: Path, checkpoint: Path) -> None:
    arrays = dict(np.load(data))
    arrays = {name: np.concatenate([array, array[-1:]]) for name, array in arrays.items()}
    arrays["labels"][-1], arrays["classes"][-1] = 3, "owl"
    np.savez(tmp_path / "four.npz", **arrays)
    shown = run(tmp_path / "four.npz", "--truth", "column:is_bad")
    assert "classes of fewer than 3 examples were not searched: owl" in " ".join(shown.split())
    rows = table(tmp_path / "list.csv")
    assert len(rows) == 91
    assert (rows[-1]["is_label_issue"], rows[-1]["score_labels"]) == ("False", "0")
    assert {row["index"] for row in rows if row["is_label_issue"] == "True"} == {"0", "1", "2"}


def test_all_detectors_with_a_checkpoint(data: Path, checkpoint: Path) -> None:
    shown = run(
        data, "--checkpoint", str(checkpoint), "--detectors", "spectral, labels,activation", "--truth", "column:is_bad"
    )  # fmt: skip
    assert "read as a list of 3 bad rows" in shown
    summary = json.loads(data.with_name("list.json").read_text())
    assert list(summary["detectors"]) == ["labels", "activation", "spectral"]
    assert len(summary["detectors"]["activation"]["evidence"]["silhouette"]) == 3
    assert "true_label" not in table(data.with_name("list.csv"))[0]


def test_the_default_with_a_checkpoint_is_labels_and_activation(data: Path, checkpoint: Path) -> None:
    shown = run(data, "--checkpoint", str(checkpoint), "--fast")
    assert "together" in shown
    assert "features of a model that has memorised a wrong label hide it" in shown
    assert list(json.loads(data.with_name("list.json").read_text())["detectors"]) == ["labels", "activation"]


def test_an_interrupted_search_goes_on_from_the_finished_models(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expunge.detection import out_of_sample

    original, calls = out_of_sample._of_fold, []

    def stopped(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(out_of_sample, "_of_fold", stopped)
    arguments = ["--data", str(data), "--arch", ARCH, "--folds", "3", "--epochs", "2", "--device", "cpu"]
    arguments += ["--out", str(data.with_name("list.csv"))]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 130
    assert "finished models are kept" in first.output
    assert not data.with_name("list.csv").exists()
    second = CliRunner().invoke(app, arguments)
    assert second.exit_code == 0
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--detectors", "label"], UnknownName, "unknown detector 'label'; did you mean 'labels'?"),
        (["--detectors", ","], InvalidInput, "--detectors names none"),
        (
            ["--detectors", "activation"],
            InvalidInput,
            "activation reads the features .* give it with --checkpoint",
        ),
        (["--fast"], InvalidInput, "labels with --fast reads the features"),
        (["--out", "list.txt"], InvalidInput, "expected a .csv file, got list.txt"),
        (["--folds", "1"], InvalidInput, "at least 2 folds, got 1"),
        (["--folds", "40"], InvalidInput, "40 folds need 40 examples of each class"),
        (["--mean", "a"], InvalidInput, "--mean takes numbers separated by commas"),
        (["--truth", "column:nothing"], InvalidInput, "the data has no column 'nothing'"),
        (["--checkpoint", "none.pt"], StoreError, "none.pt: no such file"),
    ],
)
def test_bad_requests(data: Path, more: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(data, *more)


def test_a_list_that_is_there_is_kept(data: Path) -> None:
    data.with_name("list.csv").write_text("mine")
    with pytest.raises(InvalidInput, match="is there already; choose another name"):
        run(data)
    assert data.with_name("list.csv").read_text() == "mine"


def test_a_checkpoint_that_does_not_know_the_data(data: Path) -> None:
    path = data.with_name("other.pt")
    model = MLP(1, 8, 3, 16, "relu")
    torch.nn.init.zeros_(model.head.weight)
    torch.save(model.state_dict(), path)
    with pytest.raises(
        InvalidInput, match=r"accuracy on its training data is .* chance; check that it is read"
    ):
        run(data, "--checkpoint", str(path), "--detectors", "spectral")


def test_a_model_that_cannot_read_the_data(data: Path) -> None:
    (data.parent / "net.py").write_text("from torch import nn\ndef net(): return nn.Linear(5, 3)\n")
    with pytest.raises(InvalidInput, match=r"the model cannot read inputs of shape \(1, 8, 8\)"):
        run(data, "--arch", f"{data.parent / 'net.py'}:net")
    (data.parent / "flat.py").write_text("from torch import nn\ndef net(): return nn.Flatten(0)\n")
    with pytest.raises(InvalidInput, match=r"the model returns \(192,\) for 3 inputs"):
        run(data, "--arch", f"{data.parent / 'flat.py'}:net")


def test_no_cleanlab_is_told_before_the_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cleanlab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cleanlab", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r'pip install "expunge\[find\]"'):
        run(data.with_name("absent.npz"))
