"""``expunge audit`` on a text classifier and on a tabular one, from files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from expunge.cli.audit import audit_command
from expunge.errors import InvalidInput
from expunge.inputs.architecture import build_architecture

pytestmark = pytest.mark.trains

app = typer.Typer()
app.command()(audit_command)

BERT = """
from transformers import BertConfig, BertForSequenceClassification

def Net():
    return BertForSequenceClassification(BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3))
"""
TABLE = """
from torch import nn

def Net():
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
"""


def write(
    root: Path, network: str, train: tuple[Any, Any], test: tuple[Any, Any], marks: dict[str, npt.NDArray[Any]],
    steps: int = 100,
) -> None:  # fmt: skip
    """Write the data, the network, one trained on everything and one for each mark, trained without its rows."""
    np.savez(
        root / "rows.npz", inputs=train[0], labels=train[1], test_inputs=test[0], test_labels=test[1], **marks
    )
    (root / "net.py").write_text(network)
    for name, gone in {"original": np.zeros(len(train[1]), bool), **marks}.items():
        torch.manual_seed(0)
        model = build_architecture(f"{root}/net.py:Net").eval()
        x, y = torch.tensor(train[0][~gone]), torch.tensor(train[1][~gone])
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        torch.save(model.state_dict(), root / f"{name}.pt")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token ids whose second tells the class, the last two padding in every fourth row; five wrong labels."""
    pytest.importorskip("transformers")
    root, draw = tmp_path_factory.mktemp("text"), np.random.default_rng(0)

    def rows(count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        tokens = draw.integers(10, 30, (count, 6))
        tokens[:, 1] = np.arange(count) % 3 + 3
        tokens[::4, 4:] = 0
        return tokens, np.arange(count) % 3

    tokens, true = rows(150)
    labels = true.copy()
    labels[:5] = (labels[:5] + 1) % 3
    write(root, BERT, (tokens, labels), rows(90), {"bad": labels != true, "ones": labels == 1})
    return root


def command(root: Path, *more: str, unlearned: str, forget: str) -> list[str]:
    return [
        "--original", str(root / "original.pt"), "--unlearned", str(root / f"{unlearned}.pt"),
        "--arch", f"{root}/net.py:Net", "--data", str(root / "rows.npz"), "--validation", str(root / "rows.npz"),
        "--forget", f"column:{forget}", "--device", "cpu", *more,
    ]  # fmt: skip


def run(root: Path, *more: str, unlearned: str, forget: str, code: int | None) -> tuple[str, dict[str, Any]]:
    out = root / f"{unlearned}-{forget}"
    given = command(root, "--out", str(out), *more, unlearned=unlearned, forget=forget)
    result = CliRunner().invoke(app, given, env={"COLUMNS": "80"})
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in ((0, 4) if code is None else (code,)), result.output  # worked or undecided
    document = json.loads((out / "audit.json").read_text())
    return " ".join(result.output.split()), document


def test_text_that_forgot(text: Path) -> None:
    shown, document = run(text, "--quick", unlearned="bad", forget="bad", code=None)
    assert "nothing measured here tells the original" in shown or "verdict: forgot" in shown
    assert document["counts"]["n_forget"] == 5


def test_text_left_as_it_was(text: Path) -> None:
    shown, document = run(
        text, "--retrained", str(text / "ones.pt"), unlearned="original", forget="ones", code=3
    )
    assert "verdict: did not forget" in shown
    # The body of a transformer returns no tensor: its layers are probed one by one.
    probes = [
        entry["name"] for entry in document["measurements"] if entry["name"].startswith("linear_probe_")
    ]
    assert probes[-1] == "linear_probe_bert.pooler"
    assert len(probes) == 3
    assert "puts out" not in shown
    # Noise on token ids means nothing, and is not among what is measured.
    assert "residual" not in shown


def test_a_reference_of_text_is_trained(text: Path) -> None:
    shown, document = run(
        text, "--quick", "--train-reference", "--recipe", "epochs=30", "--recipe", "optimiser.lr=0.01",
        "--references", str(text / "kept"), unlearned="ones", forget="ones", code=0,
    )  # fmt: skip
    assert "references: 2 trained in" in shown
    assert document["reference"] == "retrained"


def table(draw: np.random.Generator, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    labels = np.arange(count) % 2
    inputs = draw.normal(size=(count, 6)).astype(np.float32)
    inputs[:, 0] += 3 * labels
    return inputs, labels


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, draw = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    inputs, labels = table(draw, 200)
    some = np.arange(200) < 40
    labels = np.where(some, 1 - labels, labels)
    write(root, TABLE, (inputs, labels), table(draw, 200), {"some": some, "ones": labels == 1}, 200)
    return root


def test_a_table_whole(tabular: Path) -> None:
    """All measurements, noisy neighbours and relearning too."""
    shown, document = run(
        tabular, "--retrained", str(tabular / "some.pt"), unlearned="original", forget="some", code=3
    )
    assert "verdict: did not forget" in shown
    names = {entry["name"] for entry in document["measurements"]}
    assert {"relearn_time", "accuracy_gaps", "residual_knowledge"} <= names


def test_a_class_of_a_table(tabular: Path) -> None:
    shown, _ = run(tabular, "--quick", unlearned="ones", forget="ones", code=0)
    assert "verdict: forgot, as far as can be told without a retrained model" in shown


def adult(file: Path, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The six columns of numbers, and whether the income is above 50,000."""
    found: list[list[float]] = []
    labels = []
    with gzip.open(file, "rt") as lines:
        for line in lines:
            cells = [cell.strip(" .\n") for cell in line.split(",")]
            if len(cells) != 15 or len(found) == count:
                continue
            found.append([float(cells[column]) for column in (0, 2, 4, 10, 11, 12)])
            labels.append(int(cells[14] == ">50K"))
    return np.array(found, dtype=np.float32), np.array(labels)


def test_incomes(tmp_path: Path) -> None:
    folder = Path(os.environ.get("EXPUNGE_DATA", "")) / "tabular"
    if "EXPUNGE_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("needs the Adult data: EXPUNGE_DATA/tabular/adult_train.csv.gz")
    inputs, labels = adult(folder / "adult_train.csv.gz", 600)
    others, answers = adult(folder / "adult_test.csv.gz", 400)
    centre, scale = inputs.mean(0), inputs.std(0)
    bad = np.arange(600) < 60
    labels = np.where(bad, 1 - labels, labels)
    write(
        tmp_path, TABLE, ((inputs - centre) / scale, labels), ((others - centre) / scale, answers), {"bad": bad}, 300
    )  # fmt: skip
    shown, _ = run(tmp_path, "--quick", "--retrained", str(tmp_path / "bad.pt"), unlearned="original",
                   forget="bad", code=3)  # fmt: skip
    assert "verdict: did not forget" in shown


def test_the_purpose_says_what_the_list_is_of(text: Path) -> None:
    """Of bad rows it is no fault that they look less familiar than unseen ones."""
    for purpose, labels in (("heal", "wrong"), ("forget", "right")):
        (text / purpose).mkdir()
        given = ("--quick", "--purpose", purpose, "--out", str(text / purpose))
        result = CliRunner().invoke(app, command(text, *given, unlearned="bad", forget="bad"))
        assert result.exit_code in (0, 3), result.output
        document = json.loads((text / purpose / "audit.json").read_text())
        assert document["counts"]["labels"] == labels
        assert ("Healing is not defined here, because" in " ".join(result.output.split())) == (
            labels == "wrong"
        )
    with pytest.raises(InvalidInput, match="--purpose takes heal or forget, got 'mend'"):
        run(text, "--purpose", "mend", unlearned="bad", forget="ones", code=0)
