from __future__ import annotations

import csv
import json
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
from expunge.inputs.training_data import DataOptions
from expunge.models.mlp import MLP
from expunge.recording.recording import Recording

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


def run(data: Path, *more: str, code: int | None = 0) -> str:
    arguments = ["--data", str(data), "--arch", ARCH, "--device", "cpu"]
    if not {"--checkpoint", "--recorded"} & set(more):
        arguments += ["--folds", "3", "--epochs", "40", "--batch-size", "16", "--lr", "0.01"]
    if "--out" not in more:
        arguments += ["--out", str(data.with_name("list.csv"))]
    result = CliRunner().invoke(app, [*arguments, *more], env={"COLUMNS": "120"})
    if isinstance(result.exception, ExpungeError):
        raise result.exception
    assert result.exit_code == code or (code is None and result.exit_code in (0, 3)), result.output
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
    assert "3 of 90 rows (3.3%) are suspected" in shown
    assert f"expunge review {out}" in shown.replace("\n", "")
    rows = table(out)
    assert {row["index"] for row in rows} == {"0", "1", "2"}
    assert all(row["is_label_issue"] == "True" for row in rows)
    assert all(row["suggested_label"] == row["true_label"] for row in rows)
    assert [float(row["score"]) for row in rows] == sorted(
        (float(row["score"]) for row in rows), reverse=True
    )
    summary = json.loads(out.with_suffix(".json").read_text())
    assert summary["together"]["precision"] == 1.0
    assert summary["together"]["recall"] == 1.0
    assert summary["detectors"]["labels"]["n_flagged"] == 3
    assert summary["settings"]["batch_size"] == 16
    assert summary["reading"]["normalise"] == "auto"
    assert read_forget_list(str(out), load_training_data(str(data))).positions.tolist() == [0, 1, 2]
    assert any(data.parent.glob("list.scores.*"))
    assert not data.with_name(".list.folds").exists()


def test_a_class_of_one_row_does_not_stop_the_others(tmp_path: Path, data: Path) -> None:
    arrays = dict(np.load(data))
    arrays = {name: np.concatenate([array, array[-1:]]) for name, array in arrays.items()}
    arrays["labels"][-1], arrays["classes"][-1] = 3, "owl"
    np.savez(tmp_path / "four.npz", **arrays)
    shown = run(tmp_path / "four.npz", "--truth", "column:is_bad")
    assert "classes of fewer than 3 examples were not searched: owl" in " ".join(shown.split())
    assert "90" not in {row["index"] for row in table(tmp_path / "list.csv")}


def test_relearning_with_known_rows_and_all_detectors(data: Path, checkpoint: Path) -> None:
    known = data.with_name("known.txt")
    known.write_text("0\n")
    shown = run(
        data, "--checkpoint", str(checkpoint), "--detectors", "spectral, labels,activation", "--truth",
        "column:is_bad", "--known", str(known), "--recipe", "optimiser.lr=0.01", "--recipe", "optimiser.name=adam",
    )  # fmt: skip
    assert "read as a list of 3 bad rows" in shown
    assert "1 known rows are too few to set the cut; 5 would do" in " ".join(shown.split())
    summary = json.loads(data.with_name("list.json").read_text())
    assert list(summary["detectors"]) == ["labels", "activation", "spectral", "known"]
    assert len(summary["detectors"]["activation"]["evidence"]["silhouette"]) == 3
    assert summary["detectors"]["labels"]["n_bad"] == 2
    rows = table(data.with_name("list.csv"))
    assert "true_label" not in rows[0]
    assert next(row for row in rows if row["index"] == "0")["detector"].endswith("known")
    near = [int(row) for line in rows for row in line["nearest"].split()]
    assert near
    assert not {int(row["index"]) for row in rows} & set(near)


def test_known_rows_that_are_good_leave_no_list(data: Path, checkpoint: Path) -> None:
    known = data.with_name("known.txt")
    known.write_text("\n".join(str(row) for row in range(10, 80, 8)))
    shown = run(data, "--checkpoint", str(checkpoint), "--detectors", "labels", "--known", str(known), code=3)
    assert "No usable list; the 50 worst rows are written, none of them marked" in " ".join(shown.split())
    rows = table(data.with_name("list.csv"))
    assert sum(row["is_label_issue"] == "False" for row in rows) == 50


def test_what_was_recorded_is_read(data: Path) -> None:
    training = load_training_data(str(data)).examples
    true = torch.arange(90) % 3
    path = data.with_name("recorded.safetensors")
    with Recording(training.labels, path) as recording:
        recording.see(5.0 * torch.nn.functional.one_hot(true, 3), torch.arange(90))
    run(data, "--recorded", str(path), "--truth", "column:true_label")
    assert {row["index"] for row in table(data.with_name("list.csv"))} == {"0", "1", "2"}


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
        (
            ["--recorded", "a.safetensors", "--folds", "3"],
            InvalidInput,
            "give --folds or --recorded, not both",
        ),
        (["--recorded", "a.safetensors"], StoreError, "a.safetensors is no recording of a training"),
        (["--base", "a.pt"], InvalidInput, "--base and --earlier are for relearning"),
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


@pytest.mark.parametrize("name", ["list.csv", "list.json", "list.scores.csv"])
def test_a_file_that_is_there_is_kept(data: Path, name: str) -> None:
    data.with_name(name).write_text("mine")
    with pytest.raises(InvalidInput, match=f"{name} is there already; choose another name"):
        run(data)
    assert data.with_name(name).read_text() == "mine"
    data.with_name(name).unlink()


def test_a_checkpoint_that_does_not_know_the_data(data: Path) -> None:
    path = data.with_name("other.pt")
    model = MLP(1, 8, 3, 16, "relu")
    torch.nn.init.zeros_(model.head.weight)
    torch.save(model.state_dict(), path)
    with pytest.raises(
        InvalidInput, match=r"accuracy on its training data is .* chance; check that it is read"
    ):
        run(data, "--checkpoint", str(path), "--detectors", "spectral")


def test_images_are_read_as_fits_the_model(data: Path) -> None:
    """A network that was trained on pixels in [0, 1], and answers nonsense to others."""
    (data.parent / "strict.py").write_text(
        "from expunge.models.mlp import MLP\n"
        "class Net(MLP):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x).roll(int(x.min() < 0), 1)\n"
        "def net(): return Net(1, 8, 3, 16, 'relu')\n"
    )
    batch = next(load_training_data(str(data), DataOptions(normalise="none")).examples.batches(90))
    torch.manual_seed(0)
    model = MLP(1, 8, 3, 16, "relu")
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimiser.step()
    path = data.with_name("strict.pt")
    torch.save(model.state_dict(), path)
    arch = f"{data.parent / 'strict.py'}:net"
    said = " ".join(
        run(data, "--arch", arch, "--checkpoint", str(path), "--detectors", "spectral", code=None).split()
    )
    assert "with --normalise none: the images are read so" in said


def test_a_model_that_cannot_read_the_data(data: Path) -> None:
    (data.parent / "net.py").write_text("from torch import nn\ndef net(): return nn.Linear(5, 3)\n")
    with pytest.raises(InvalidInput, match=r"the model cannot read inputs of shape \(1, 8, 8\)"):
        run(data, "--arch", f"{data.parent / 'net.py'}:net")
    (data.parent / "flat.py").write_text("from torch import nn\ndef net(): return nn.Flatten(0)\n")
    with pytest.raises(InvalidInput, match=r"the model returns \(192,\) for 3 inputs"):
        run(data, "--arch", f"{data.parent / 'flat.py'}:net")
