from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import expunge.repair.clean as repairing
from expunge.cli.clean import clean_command
from expunge.errors import DataError, Diverged, ExpungeError, InvalidInput, StoreError
from expunge.inputs.architecture import return_logits
from expunge.inputs.sources import load_training_data
from expunge.methods.npo import NPO
from expunge.methods.request import Found
from expunge.models.mlp import MLP

app = typer.Typer()
app.command()(clean_command)

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
        self.middle = nn.Linear(16 * width, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.middle(self.body(x).flatten(1)).relu())
"""


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, passes: int, lr: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr)
    source = torch.Generator().manual_seed(0)
    for _ in range(passes):
        for rows in torch.randperm(len(x), generator=source).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of digits in folders, 40 of 800 in a wrong one, 20 of those listed; a model that learned them."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("digits")
    found, draw = load_digits(), np.random.default_rng(0)
    order = draw.permutation(len(found.target))
    labels = found.target.copy()
    bad = order[:40]
    labels[bad] = (labels[bad] + draw.integers(1, 10, 40)) % 10
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)
    for part, rows, given in (("train", order[:800], labels), ("held_out", order[800:1200], found.target)):
        for row in rows:
            folder = root / part / f"digit{given[row]}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[row]).save(folder / f"{row:04d}.png")
    with (root / "bad.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "true_label"])
        writer.writerows(
            [f"digit{labels[row]}/{row:04d}.png", f"digit{found.target[row]}"] for row in bad[:20]
        )
    (root / "net.py").write_text(NETWORK)
    sys.path.insert(0, str(root))
    space: dict[str, Any] = {}
    exec(NETWORK, space)
    sys.path.remove(str(root))
    data = load_training_data(str(root / "train"))
    batch = next(data.examples.batches(800))
    torch.manual_seed(0)
    model = space["Net"]()
    train(model, batch.x, batch.y, 25, 0.003)
    torch.save({"epoch": 25, "state_dict": model.state_dict()}, root / "net.pt")
    return root


def command(root: Path, *more: str) -> list[str]:
    given = {
        "--checkpoint": str(root / "net.pt"),
        "--arch": f"{root}/net.py:Net",
        "--data": str(root / "train"),
        "--forget": str(root / "bad.csv"),
        "--device": "cpu",
    }
    for option, value in zip(more[::2], more[1::2], strict=False):
        if option in given:
            given[option] = value
    rest = [text for option, value in zip(more[::2], more[1::2], strict=True) if option not in given
            for text in ((option, value) if value else (option,))]  # fmt: skip
    return [text for pair in given.items() for text in pair] + rest


def run(root: Path, *more: str, code: int | None = 0) -> str:
    """Run the command; ``more`` are pairs of option and value, empty for a flag; no ``code``: worked or not."""
    result = CliRunner().invoke(app, command(root, *more), env={"COLUMNS": "80"})
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in ((0, 3, 4) if code is None else (code,)), result.output
    return result.output


@pytest.mark.trains
def test_a_new_user_repairs_a_model_with_one_command(
    digits: Path, tmp_path: Path, margin: Callable[..., None]
) -> None:
    before = (digits / "net.pt").read_bytes()
    script = (
        "import typer; from expunge.cli.clean import clean_command; app = typer.Typer(); "
        "app.command()(clean_command); app()"
    )
    options = command(digits, "--out", str(tmp_path / "cleaned"), "--validation", str(digits / "held_out"),
                      "--recipe", "epochs=25")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "20 rows, by given class",
        "method",
        "rem",
        "before",
        "after",
        "It worked",
        "of a retraining",
    ):
        assert said in done.stdout
    assert (digits / "net.pt").read_bytes() == before
    # Plain PyTorch reads it, under the same names, in the same form.
    old = torch.load(digits / "net.pt", weights_only=True)
    new = torch.load(tmp_path / "cleaned" / "checkpoint.pt", weights_only=True)
    assert list(new) == ["epoch", "state_dict"]
    assert list(new["state_dict"]) == list(old["state_dict"])
    for name, tensor in old["state_dict"].items():
        assert (new["state_dict"][name].shape, new["state_dict"][name].dtype) == (tensor.shape, tensor.dtype)
    space: dict[str, Any] = {}
    exec(NETWORK, space)
    model = space["Net"]()
    model.load_state_dict(new["state_dict"])
    report = json.loads((tmp_path / "cleaned" / "report.json").read_text())
    assert report["verdict"] == "it worked"
    margin("listed labels kept before", report["before"]["forget_as_stored"]["right"], above=4)
    margin("listed labels kept", report["after"]["forget_as_stored"]["right"], below=5)
    assert 0 < report["cost"]["share_of_retraining"] < 1
    assert report["provenance"]["checkpoint"]
    # What the report says of the file is what the file does.
    data = load_training_data(str(digits / "train"))
    rows = torch.tensor(report["listed"]["rows"])
    batch = next(data.examples.select(rows).batches(100))
    kept = int((model.eval()(batch.x).argmax(1) == batch.y).sum())
    assert kept == report["after"]["forget_as_stored"]["right"]
    page = (tmp_path / "cleaned" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))
    for said in ("It worked", "Class by class", "digit3", "rem", report["provenance"]["checkpoint"]):
        assert said in page
    with (tmp_path / "cleaned" / "disagree.csv").open(newline="") as file:
        turned = list(csv.DictReader(file))
    assert len(turned) == report["disagreeing"]
    assert all(row["given_label"] != row["predicted_label"] for row in turned)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of three classes that an MLP has learned, the label of rows 0 to 2 wrong."""
    root = tmp_path_factory.mktemp("corners")
    draw = np.random.default_rng(0)
    true = np.arange(60) % 3
    images = draw.integers(0, 60, (60, 8, 8), dtype=np.uint8)
    for row, label in enumerate(true):
        images[row, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 90
    labels = true.copy()
    labels[:3] = (labels[:3] + 1) % 3
    np.savez(
        root / "corners.npz", images=images, labels=labels, true_label=true, is_bad=labels != true,
        classes=np.array(["ant", "bee", "<b>cat"]), test_images=images[30:], test_labels=true[30:],
    )  # fmt: skip
    batch = next(load_training_data(str(root / "corners.npz")).examples.batches(60))
    torch.manual_seed(0)
    model = MLP(1, 8, 3, 64, "relu")
    train(model, batch.x, batch.y, 60, 0.01)
    torch.save(model.state_dict(), root / "model.pt")
    return root


@pytest.fixture
def small(learned: Path, tmp_path: Path) -> Path:
    """A copy of these files."""
    for file in learned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def quick(root: Path, *more: str, code: int = 0) -> str:
    return run(
        root, "--checkpoint", str(root / "model.pt"), "--arch", "expunge:mlp?hidden=64&activation=relu",
        "--data", str(root / "corners.npz"), "--forget", "column:is_bad", "--out", str(root / "out"), *more, code=code,
    )  # fmt: skip


NPO_SETTINGS = ("--method", "npo", "--set", "lr=0.05", "--set", "threshold=0.0", "--set", "passes=60")


@pytest.mark.trains
def test_everything_given(small: Path) -> None:
    said = quick(
        small, *NPO_SETTINGS, "--truth", "column:true_label", "--measure-only", "",
        "--validation", str(small / "corners.npz"), "--reference", str(small / "model.pt"), code=4,
    )  # fmt: skip
    assert "npo: you named it" in said
    report = json.loads((small / "out" / "report.json").read_text())
    assert report["method"]["settings"]["lr"] == 0.05
    assert report["method"]["settings_for_this_data"] == {"batch_size": 8}
    assert report["before"]["healed_known"] == {"right": 0, "of": 3}
    assert report["before"]["healed_unknown"] is None
    assert report["reference"] == report["before"]
    assert report["asked"]["truth_learned"] is False
    page = (small / "out" / "report.html").read_text()
    assert "<b>cat" not in page
    assert "&lt;b&gt;cat" in page
    assert "reference" in page
    written = torch.load(small / "out" / "checkpoint.pt", weights_only=True)
    assert list(written) == list(torch.load(small / "model.pt", weights_only=True))


@pytest.mark.trains
def test_corrected_labels_are_learned(small: Path) -> None:
    quick(
        small, "--method", "finetune", "--set", "lr=0.05", "--set", "epochs=20", "--truth", "column:true_label", code=0
    )  # fmt: skip
    report = json.loads((small / "out" / "report.json").read_text())
    assert report["asked"]["truth_learned"] is True
    assert report["after"]["healed_known"] == {"right": 3, "of": 3}
    assert "were trained on" in (small / "out" / "report.html").read_text()


def test_the_same_seed_gives_the_same_file(small: Path) -> None:
    written = []
    for number in range(2):
        quick(small, "--out", str(small / f"out{number}"), *NPO_SETTINGS)
        written.append(torch.load(small / f"out{number}" / "checkpoint.pt", weights_only=True))
    assert all(torch.equal(written[0][name], written[1][name]) for name in written[0])


@pytest.mark.trains
def test_a_repair_that_does_nothing_did_not_work(small: Path) -> None:
    said = quick(small, "--method", "finetune", "--set", "epochs=1", "--set", "lr=1e-6", code=3)
    assert "It did not work: retrain" in said
    assert json.loads((small / "out" / "report.json").read_text())["verdict"] == "it did not work: retrain"


def test_rows_that_a_method_found(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = repairing.unlearn

    def finding(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        scores = torch.zeros(63)
        positions = torch.tensor([1, 7, 5, 61])  # 1 is listed, 61 is the copy of a corrected row
        scores[positions] = torch.tensor([0.9, 0.2, 0.8, 0.7])
        return replace(result, found=Found(positions, scores, 0.25))

    monkeypatch.setattr(repairing, "unlearn", finding)
    said = quick(small, *NPO_SETTINGS, "--truth", "column:true_label")
    told = " ".join(said.split())
    assert "found.csv: 2 more rows that the method takes for bad; about 25% of them may be good" in told
    assert json.loads((small / "out" / "report.json").read_text())["found"] == {
        "rows": 2,
        "expected_good": 0.25,
    }
    with (small / "out" / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["index"], row["score"]) for row in rows] == [("5", "0.8"), ("7", "0.2")]
    page = (small / "out" / "report.html").read_text()
    assert "Rows the method found" in page
    assert "25% of them may be good" in page


def test_what_happened_on_the_way_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = repairing.unlearn
    note = "pass 2 diverged; made again from its start"
    monkeypatch.setattr(
        repairing, "unlearn", lambda *given, **named: replace(original(*given, **named), notes=(note,))
    )
    assert note in quick(small, *NPO_SETTINGS)
    report = json.loads((small / "out" / "report.json").read_text())
    assert (report["notes"], report["written"], report["rejected"]) == ([note], "checkpoint.pt", False)
    assert note in (small / "out" / "report.html").read_text()


def test_a_worse_model_is_rejected(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = repairing.unlearn

    def ruin(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        nn.init.zeros_(list(result.model.parameters())[-2])
        return result

    monkeypatch.setattr(repairing, "unlearn", ruin)
    said = quick(small, *NPO_SETTINGS, "--validation", str(small / "corners.npz"), code=3)
    assert "is worse than the model was, so it is called rejected.pt" in " ".join(said.split())
    assert (small / "out" / "rejected.pt").is_file()
    assert not (small / "out" / "checkpoint.pt").exists()
    report = json.loads((small / "out" / "report.json").read_text())
    assert (report["written"], report["rejected"]) == ("rejected.pt", True)
    assert "rejected.pt" in (small / "out" / "report.html").read_text()


def hardly_learned(small: Path) -> tuple[str, ...]:
    """Twelve rows with labels the model does not give, and a list of them."""
    with np.load(small / "corners.npz") as stored:
        content = dict(stored)
    true = content["true_label"]
    content["labels"] = true.copy()
    content["labels"][48:] = (true[48:] + 1) % 3
    np.savez(small / "corners.npz", **content)
    (small / "list.txt").write_text("".join(f"{row}\n" for row in range(48, 60)))
    return ("--forget", str(small / "list.txt"))


def test_little_to_repair_stops(small: Path) -> None:
    listed = hardly_learned(small)
    said = " ".join(quick(small, *listed, code=3).split())
    assert "gives 0% of the 12 listed rows their given label: there is little to repair" in said
    assert "It worked" not in said
    assert list(small.glob(".out*")) == []
    before, after = (torch.load(path) for path in (small / "model.pt", small / "out" / "checkpoint.pt"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    report = json.loads((small / "out" / "report.json").read_text())
    assert (report["verdict"], report["method"]["name"]) == ("little to repair", "none")
    assert report["before"] == report["after"]
    # Nothing is to be healed where good rows are forgotten.
    shutil.rmtree(small / "out")
    quick(small, *listed, *NPO_SETTINGS, "--purpose", "forget", code=None)


def test_little_to_repair_by_force(small: Path) -> None:
    quick(small, *hardly_learned(small), "--force", "", code=None)
    report = json.loads((small / "out" / "report.json").read_text())
    assert report["asked"]["forced"] is True
    assert report["method"]["settings_for_this_data"]["least_learned"] == 0


def test_a_rate_that_diverges_names_what_was_tried(small: Path) -> None:
    with pytest.raises(Diverged, match=r"diverged at the learning rates 1e\+18, 5e\+17, 2.5e\+17"):
        quick(small, "--recipe", "optimiser.lr=1e18", "--recipe", "optimiser.name=sgd")
    assert not (small / "out").exists()


@pytest.mark.parametrize(
    ("method", "count", "expected"),
    [("relearn", 58, "2 examples are left beside the listed ones, for 3 classes"), ("npo", 58, "")],
)
def test_fewer_rows_left_than_classes(small: Path, method: str, count: int, expected: str) -> None:
    (small / "list.txt").write_text("".join(f"{row}\n" for row in range(count)))
    given = ("--forget", str(small / "list.txt"), "--method", method)
    if not expected:
        quick(small, *given, code=None)
        return
    with pytest.raises(InvalidInput, match=expected):
        quick(small, *given)


def test_going_back_to_the_weights_it_began_from(small: Path) -> None:
    base = MLP(1, 8, 3, 64, "relu")
    torch.save(base.state_dict(), small / "base.pt")
    given = (
        "--set",
        "keep=0.5",
        "--set",
        "least_steps=0",
        "--set",
        "epochs=2",
        "--recipe",
        "optimiser.lr=1e-9",
    )
    for option in ("--base", "--earlier"):
        out = small / option.strip("-")
        quick(small, *given, option, str(small / "base.pt"), "--out", str(out), code=None)
        report = json.loads((out / "report.json").read_text())
        assert report["asked"][option.strip("-")] == str(small / "base.pt")
        # At such a rate nothing is learned: the weights are those half way back.
        (written,) = (torch.load(out / file, weights_only=True) for file in [report["written"]])
        trained = torch.load(small / "model.pt", weights_only=True)
        for name, tensor in base.state_dict().items():
            assert torch.allclose(written[name], (trained[name] + tensor) / 2, atol=1e-4)


def test_what_a_trainer_left_is_followed(small: Path) -> None:
    state = {"num_train_epochs": 3, "train_batch_size": 16, "log_history": [{"learning_rate": 5e-4}]}
    (small / "trainer_state.json").write_text(json.dumps(state))
    said = " ".join(quick(small, code=None).split())
    assert "adamw, learning rate 0.0005, batches of up to 16: as in the first training, from" in said
    report = json.loads((small / "out" / "report.json").read_text())
    assert report["method"]["name"] == "relearn"
    assert "to repeat that without the listed rows would cost less" in report["method"]["why"]  # 3 epochs
    # Such a network began from weights that nobody gave: it cannot be retrained.
    with pytest.raises(InvalidInput, match=r"'retrain' needs what is not there: .*--recipe"):
        quick(small, "--method", "retrain", "--out", str(small / "other"))


def test_weights_that_a_method_does_not_go_back_to(small: Path) -> None:
    said = quick(small, *NPO_SETTINGS, "--base", str(small / "model.pt"))
    assert "warning   --base is not used: npo does not go back to given weights" in said


def test_weights_of_another_network_stop_before_the_work(small: Path) -> None:
    torch.save(MLP(1, 8, 3, 32, "relu").state_dict(), small / "narrow.pt")
    with pytest.raises(
        InvalidInput, match=r"narrow.pt: the weights to go back to have .* of shape \(32, 64\)"
    ):
        quick(small, "--base", str(small / "narrow.pt"))
    assert not (small / "out").exists()


def test_listed_rows_of_one_class(small: Path) -> None:
    with np.load(small / "corners.npz") as stored:
        labels = stored["labels"]
    (small / "list.txt").write_text("".join(f"{row}\n" for row in (labels == 1).nonzero()[0][:12]))
    quick(small, "--forget", str(small / "list.txt"), code=None)
    assert json.loads((small / "out" / "report.json").read_text())["listed"]["per_class"] == {"bee": 12}


def test_an_empty_list_is_the_work_of_find(small: Path) -> None:
    (small / "list.txt").write_text("# none yet\n")
    with pytest.raises((InvalidInput, DataError), match="expunge find"):
        quick(small, "--forget", str(small / "list.txt"))


def test_a_frozen_network_stops_at_the_check(small: Path) -> None:
    (small / "frozen.py").write_text(
        "from expunge.models.mlp import MLP\ndef Net(): return MLP(1, 8, 3, 64, 'relu').requires_grad_(False)"
    )
    said = CliRunner().invoke(
        app,
        command(small, "--checkpoint", str(small / "model.pt"), "--arch", f"{small}/frozen.py:Net",
                "--data", str(small / "corners.npz"), "--forget", "column:is_bad", "--out", str(small / "out")),
        env={"COLUMNS": "300"},
    )  # fmt: skip
    assert isinstance(said.exception, InvalidInput)
    assert "parameters are frozen" in said.output
    assert not (small / "out").exists()


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interruption_leaves_everything_as_it_was(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (small / "model.pt").read_bytes()
    monkeypatch.setattr(NPO, "unlearn", interrupted)
    there = set(small.iterdir())
    said = quick(small, *NPO_SETTINGS, code=130)
    assert "model.pt is as it was" in said
    assert "was not written" in said
    assert (small / "model.pt").read_bytes() == before
    assert set(small.iterdir()) == there


def test_what_was_written_before_an_interruption_is_named(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.repair.clean_files.write_files", interrupted)
    said = quick(small, *NPO_SETTINGS, code=130)
    assert not (small / "out").exists()
    (partial,) = small.glob(".out.partial-*")
    assert (partial / "checkpoint.pt").is_file()
    assert str(partial) in said


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("out of memory")]
)
def test_out_of_memory_names_the_setting(
    small: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def short(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(NPO, "unlearn", short)
    with pytest.raises(
        ExpungeError, match=r"out of memory while unlearning with npo; .*--set batch_size=4 \(it was 8"
    ):
        quick(small, *NPO_SETTINGS)
    assert not (small / "out").exists()


def test_out_of_memory_while_measuring(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(repairing, "measure", short)
    with pytest.raises(ExpungeError, match=r"out of memory while measuring; use --measure-batch 64"):
        quick(small, *NPO_SETTINGS)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "lr"), r"--set takes FIELD=VALUE, such as batch_size=64; got 'lr'"),
        (("--set", "lr=1", "--set", "lr=2"), r"--set: 'lr' is given twice"),
        (("--method", "npo", "--set", "rate=1"), r"'npo' has no setting 'rate'"),
        (("--method", "npo", "--set", "lrr=1", "--data", "none.npz"), r"no setting 'lrr'; did you mean 'lr'"),
        (("--set", "lrr=1", "--data", "none.npz"), r"no method has a setting 'lrr'; did you mean 'lr'"),
        (("--method", "npo", "--set", "lr=fast"), r"lr takes a number, got 'fast'"),
        (("--method", "npo", "--set", "passes=1.5"), r"passes takes a whole number, got 1.5"),
        (("--recipe", "optimiser.lr=[1]"), r"--recipe optimiser cannot be made with .*lr takes a number"),
        (("--method", "nop"), r"unknown method 'nop'; did you mean"),
        (("--purpose", "mend"), r"--purpose takes heal or forget, got 'mend'"),
        (("--discovery", "2"), r"in \(0, 1\], got 2"),
        (("--recipe", "epoch=3"), r"--recipe has no field 'epoch'; did you mean 'epochs'"),
        (
            ("--recipe", "epochs=many"),
            r"--recipe cannot be made .* \(epochs takes a whole number, got 'many'\)",
        ),
        (("--measure-batch", "0"), r"at least 1, got 0"),
        (("--method", "lotus"), r"'lotus' needs what is not there: .*--unseen"),
        (("--method", "retrain"), r"'retrain' needs what is not there: .*--recipe epochs="),
        (("--method", "rem_ideal"), r"only an experiment knows"),
        (("--method", "unsir"), r"every row of some classes"),
        (("--method", "rem", "--no-retain", ""), r"--no-retain forbids it"),
        (("--purpose", "forget", "--truth", "column:true_label"), r"true labels are for bad rows"),
        (("--truth", "column:labels"), r"the data has no column 'labels'"),
        (("--forget", "column:none"), r"the data has no column 'none'"),
        (("--validation", "nowhere"), r"there is no data 'nowhere'"),
        (("--reference", "none.pt"), r"none.pt: no such file"),
        (("--base", "none.pt"), r"none.pt: no such file"),
        (("--base", "a.pt", "--earlier", "b.pt"), r"--base or --earlier, not both"),
    ],
)
def test_what_cannot_be_asked_for(small: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises((InvalidInput, StoreError), match=message):
        quick(small, *more)
    assert not (small / "out").exists()
    assert list(small.glob(".out*")) == []


def test_a_pickled_model_is_refused(small: Path) -> None:
    torch.save(MLP(1, 8, 3, 64, "relu"), small / "whole.pt")
    with pytest.raises(StoreError, match="holds pickled objects"):
        quick(small, "--checkpoint", str(small / "whole.pt"))


def test_mismatched_classes(small: Path) -> None:
    torch.save(MLP(1, 8, 4, 64, "relu").state_dict(), small / "four.pt")
    with pytest.raises(InvalidInput, match=r"has 4 classes, but the architecture has 3"):
        quick(small, "--checkpoint", str(small / "four.pt"))


def test_a_model_of_other_data_stops_at_the_check(small: Path) -> None:
    model = MLP(1, 8, 3, 64, "relu")
    nn.init.zeros_(next(model.parameters()))
    torch.save(model.state_dict(), small / "fresh.pt")
    with pytest.raises(InvalidInput, match=r"fresh.pt with this data found an error; nothing was changed"):
        quick(small, "--checkpoint", str(small / "fresh.pt"))
    assert not (small / "out").exists()


def test_an_output_folder_in_use(small: Path) -> None:
    (small / "out").mkdir()
    (small / "out" / "mine.txt").write_text("")
    with pytest.raises(InvalidInput, match="not empty"):
        quick(small)


def pictures(small: Path) -> Path:
    for label, name in enumerate(("ant", "bee")):
        (small / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8), 40 + 150 * label + number, dtype=np.uint8)
            Image.fromarray(pixels).save(small / "pictures" / name / f"{name}{number}.png")
    return small / "pictures"


def test_files_that_are_not_there_and_pictures_that_are_damaged(small: Path) -> None:
    folder = pictures(small)
    (small / "bad.txt").write_text("ant/ant0.png\nant/ant9.png\n")
    given = ("--data", str(folder), "--forget", str(small / "bad.txt"))
    with pytest.raises(
        DataError, match=r"1 of 2 names are not in the data \(the first is 'ant/ant9.png'; did you"
    ):
        quick(small, *given)
    (folder / "bee" / "bee3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bee3\.png"):
        quick(small, *given)
    with pytest.raises(DataError, match="no such file"):
        quick(small, "--forget", str(small / "none.csv"))


def vectors(root: Path, inputs: np.ndarray[Any, Any], network: str, make: Callable[[], nn.Module]) -> None:
    """Three classes told by row number modulo 3; the first thirtieth wrong; a model that learned them."""
    true = np.arange(len(inputs)) % 3
    labels = true.copy()
    bad = max(3, len(inputs) // 30)
    labels[:bad] = (labels[:bad] + 1) % 3
    np.savez(root / "rows.npz", inputs=inputs, labels=labels, is_bad=labels != true, true_label=true)
    (root / "net.py").write_text(network)
    torch.manual_seed(0)
    model = make()
    train(model, torch.tensor(inputs), torch.tensor(labels), 150, 0.01)
    torch.save(model.state_dict(), root / "net.pt")


def table(root: Path) -> None:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(90, 6)).astype(np.float32)
    inputs[np.arange(90), np.arange(90) % 3] += 3
    network = (
        "from torch import nn\ndef Net(): return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))"
    )
    vectors(root, inputs, network, lambda: nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)))


def own(root: Path, *more: str, code: int | None = 0) -> str:
    return run(root, "--data", str(root / "rows.npz"), "--forget", "column:is_bad", "--out", str(root / "out"), *more,
               code=code)  # fmt: skip


@pytest.mark.trains
def test_a_table_of_vectors(tmp_path: Path) -> None:
    table(tmp_path)
    said = own(tmp_path, "--truth", "column:true_label", "--measure-only", "")
    assert "method    relearn" in said
    assert "training  adamw, learning rate" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["method"]["training"].endswith("at a rate that was tried on retained examples")
    assert report["method"]["settings"]["lr"] == report["method"]["settings_for_this_data"]["lr"]
    assert report["before"]["forget_as_stored"] == {"right": 3, "of": 3}
    assert report["after"]["forget_as_stored"]["right"] == 0


def test_a_network_without_a_place_to_attach(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(12, 40)).astype(np.float32)
    network = "from torch import nn\ndef Net(): return nn.Linear(40, 3)"
    vectors(tmp_path, inputs, network, lambda: nn.Linear(40, 3))
    with pytest.raises(
        InvalidInput,
        match=r"Linear has no Conv2d, and no Linear beside its head, .*choose a method that adds none, such as 'npo'",
    ):
        own(tmp_path, "--method", "rem")
    assert "Next best: rem_without_redirection" in own(tmp_path, code=None).replace("\n          ", " ")


TEXT = """
from transformers import BertConfig, BertForSequenceClassification

def Net():
    return BertForSequenceClassification(BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
"""


@pytest.mark.trains
def test_a_text_classifier(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    draw = np.random.default_rng(0)
    tokens = draw.integers(10, 30, (150, 6))
    tokens[:, 1] = np.arange(150) % 3 + 3  # the second token tells the class
    space: dict[str, Any] = {}
    exec(TEXT, space)
    vectors(tmp_path, tokens, TEXT, lambda: return_logits(space["Net"]()))
    said = own(tmp_path, code=None)
    assert "method    relearn" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["after"]["forget_as_stored"]["right"] < report["before"]["forget_as_stored"]["right"]
    assert report["after"]["retained"]["right"] > 0.8 * report["after"]["retained"]["of"]
    for method in ("natmu", "amun"):
        with pytest.raises(
            InvalidInput, match=rf"'{method}' makes new inputs .* token ids.*Methods that would do: "
        ):
            own(tmp_path, "--method", method, "--out", str(tmp_path / "other"))
    # Left to itself it takes one that works on tokens.
    # Layer norms are not shrunk, so that this network is fine-tuned, by a method that works on tokens.
    assert "amnesiac" in own(
        tmp_path, "--purpose", "forget", "--out", str(tmp_path / "other"), "--set", "epochs=1", code=None
    )


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    code = "import sys, expunge.cli.clean; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow  # a start of the processes takes ten seconds
def test_devices_share_the_training_of_a_network_from_a_file(digits: Path, tmp_path: Path) -> None:
    for count in ("1", "2"):
        run(digits, "--out", str(tmp_path / count), "--devices", count, "--dtype", "float32", code=None)
    written = [torch.load(tmp_path / count / "checkpoint.pt", weights_only=True) for count in ("1", "2")]
    alone, shared = (content["state_dict"] for content in written)
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=0, atol=1e-3)


def test_devices_that_cannot_share_are_refused_before_anything_is_measured(
    digits: Path, tmp_path: Path
) -> None:
    for more, message in (
        (("--devices", "0"), "at least 1, got 0"),
        (("--devices", "2", "--method", "lotus", "--unseen", str(digits / "held_out")), "run it on one"),
    ):
        with pytest.raises(InvalidInput, match=message):
            run(digits, "--out", str(tmp_path / "out"), *more)
    assert not (tmp_path / "out").exists()


def test_the_precision_that_was_asked_for_is_that_of_the_repair(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def request(*args: Any, **given: Any) -> Any:
        asked.append(given["numerics"].dtype)
        raise InvalidInput("far enough")

    monkeypatch.setattr(repairing, "Request", request)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(InvalidInput, match="far enough"):
            run(digits, "--out", str(tmp_path / dtype), "--dtype", dtype)
    assert asked == ["float32", "bfloat16"]
