"""What can be asked of a model that was unlearned, and the commands from Python."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

import expunge
from expunge.errors import StoreError, UnknownName
from expunge.models.mlp import MLP
from expunge.result import Result


def blobs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs around three centres, and which one."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.randn(n, 6, generator=draw) * 0.4 + 2 * torch.eye(6)[labels], labels


@pytest.fixture(scope="module")
def done() -> tuple[torch.nn.Module, Result]:
    torch.manual_seed(0)
    inputs, labels = blobs(150, 0)
    labels = labels.clone()
    labels[:12] = (labels[:12] + 1) % 3
    model = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = TensorDataset(*blobs(90, 1))
    result = expunge.unlearn(
        model, TensorDataset(inputs, labels), forget=range(12), method="relearn", validation=held_out,
        optimiser="adamw", lr=0.005, batch_size=16,
    )  # fmt: skip
    return model, result


def test_a_short_repr(done: tuple[torch.nn.Module, Result]) -> None:
    _, result = done
    assert repr(result).startswith("<Result: relearn, ")
    assert f"{result.cost.sample_gradients:,} sample gradients" in repr(result)
    assert len(repr(result)) < 100


def test_rows_tell_of_every_training_row(done: tuple[torch.nn.Module, Result]) -> None:
    model, result = done
    rows = result.rows()
    assert list(rows) == ["given_label", "listed", "flagged", "score", "before", "after"]
    assert rows["listed"].to_numpy().nonzero()[0].tolist() == list(range(12))
    inputs, _ = blobs(150, 0)
    with torch.no_grad():
        assert rows["before"].tolist() == model(inputs).argmax(1).tolist()
        assert rows["after"].tolist() == result.model(inputs).argmax(1).tolist()
    assert result.found is not None
    assert set(rows.index[rows["flagged"]]) == set(result.found.positions.tolist())


def test_the_verdict_is_that_of_an_audit_on_the_validation_set(done: tuple[torch.nn.Module, Result]) -> None:
    _, result = done
    values = {row.name: row for row in result.audit.rows}
    inputs, labels = blobs(90, 1)
    with torch.no_grad():
        right = float((result.model(inputs).argmax(1) == labels).double().mean())
    assert values["test_accuracy"].value("unlearned") == pytest.approx(right)
    assert result.verdict() is result.audit.verdict
    assert result.audit is result.audit


def test_the_report_as_text_and_in_a_notebook(done: tuple[torch.nn.Module, Result], tmp_path: Path) -> None:
    _, result = done
    report = result.report()
    verdict = result.verdict()
    text, page = str(report), report._repr_html_()
    assert text.lower().startswith(verdict.grade)
    assert repr(report) == text
    assert "forget accuracy" in text
    assert "forget accuracy" in page
    assert "<script" not in page
    report.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_weights_are_saved(done: tuple[torch.nn.Module, Result], tmp_path: Path) -> None:
    _, result = done
    result.save(tmp_path / "net.pt")
    result.save(tmp_path / "net.safetensors")
    for stored in (
        torch.load(tmp_path / "net.pt", weights_only=True),
        load_file(tmp_path / "net.safetensors"),
    ):
        assert all(torch.equal(value, stored[name]) for name, value in result.model.state_dict().items())
    with pytest.raises(StoreError, match=r"the model .* cannot be written"):
        result.save(tmp_path)


def test_tab_completion_shows_what_there_is() -> None:
    script = "import sys, expunge; print(*dir(expunge)); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    names, torch_there = shown.splitlines()
    assert {"unlearn", "clean", "audit", "load_method", "Method"} <= set(names.split())
    assert torch_there == "False"
    assert all(hasattr(expunge, name) for name in dir(expunge))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A table of pictures with three wrong labels, and an MLP that has learned them."""
    root = tmp_path_factory.mktemp("jobs")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (60, 8, 8), dtype=np.uint8)
    true = np.arange(60) % 3
    for row, label in enumerate(true):
        images[row, 2 * label : 2 * label + 2] += 120
    labels = true.copy()
    labels[:3] = (labels[:3] + 1) % 3
    np.savez(root / "data.npz", images=images, labels=labels, classes=np.array(["ant", "bee", "cat"]))
    np.savez(root / "test.npz", images=images[30:], labels=true[30:], classes=np.array(["ant", "bee", "cat"]))
    torch.manual_seed(0)
    model = MLP(1, 8, 3, 64, "relu")
    from expunge.inputs.sources import load_training_data

    batch = next(load_training_data(str(root / "data.npz")).examples.batches(60))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        loss = torch.nn.functional.cross_entropy(model(batch.x), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), root / "net.pt")
    (root / "bad.txt").write_text("0\n1\n2\n")
    return {
        "checkpoint": root / "net.pt", "arch": "expunge:mlp?hidden=64&activation=relu",
        "data": str(root / "data.npz"), "forget": str(root / "bad.txt"), "root": root,
    }  # fmt: skip


def test_clean_and_audit_from_python(files: dict[str, Any], tmp_path: Path) -> None:
    given = copy.copy(files)
    root = given.pop("root")
    table = expunge.clean(**given, out=tmp_path / "out", method="npo", settings={"passes": 2}, device="cpu")
    assert list(table) == ["given_label", "listed", "flagged", "score", "before", "after"]
    assert table["given_label"][:4].tolist() == ["bee", "cat", "ant", "ant"]
    assert table["listed"].sum() == 3
    assert table["before"][:3].tolist() == ["bee", "cat", "ant"]
    assert table.attrs["verdict"] in table.attrs["sentence"] or table.attrs["sentence"].startswith(
        "The 3 listed rows"
    )
    assert Path(table.attrs["checkpoint"]).is_file()
    assert (tmp_path / "out" / "report.html").is_file()
    measures = expunge.audit(
        given["checkpoint"], table.attrs["checkpoint"], given["arch"], given["data"], given["forget"],
        str(root / "test.npz"), quick=True, retrained=str(given["checkpoint"]), references=str(root / "kept"),
        device="cpu",
    )  # fmt: skip
    one = measures.set_index("measure").loc["forget_accuracy"]
    assert one["original"] == 1.0
    assert one["retrained"] == 1.0
    assert one["unlearned"] == pytest.approx(float((table["after"] == table["given_label"])[:3].mean()))
    assert measures.attrs["verdict"]


def test_an_option_that_there_is_not(files: dict[str, Any], tmp_path: Path) -> None:
    given = {name: value for name, value in files.items() if name != "root"}
    with pytest.raises(UnknownName, match=r"there is no option 'metod'.*method"):
        expunge.clean(**given, out=tmp_path / "out", metod="npo")
