from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from expunge.api import unlearn
from expunge.cli.audit import audit_command
from expunge.errors import DataError, ExpungeError, InvalidInput
from expunge.inputs.sources import load_training_data
from expunge.models.mlp import MLP

pytestmark = pytest.mark.trains

app = typer.Typer()
app.command()(audit_command)

ARCH = "expunge:mlp?hidden=16&activation=relu"
RECIPE = ("epochs=30", "batch_size=16", "optimiser.name=adam", "optimiser.lr=0.01")


def images(folder: Path, name: str, count: int, seed: int) -> Path:
    """Images whose bright quarter is the class, of four; ten rows bear a wrong label in the training part."""
    draw = np.random.default_rng(seed)
    true = np.arange(count) % 4
    pixels = draw.integers(0, 120, (count, 8, 8), dtype=np.uint8)
    for row, label in enumerate(true):
        pixels[row, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 100
    path = folder / f"{name}.npz"
    np.savez(path, images=pixels, labels=true, true_label=true, classes=np.array(list("abcd")))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data, a list of class b, a trained model, and that model with class b's logit masked."""
    data = images(tmp_path, "train", 120, 0)
    images(tmp_path, "test", 80, 1)
    training = load_training_data(str(data)).examples
    listed = (training.labels == 1).nonzero().flatten()
    (tmp_path / "b.txt").write_text("\n".join(map(str, listed.tolist())))
    torch.manual_seed(0)
    model = MLP(1, 8, 4, 16, "relu")
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    batch = next(training.batches(120))
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimiser.step()
    torch.save(model.state_dict(), tmp_path / "original.pt")
    masked = unlearn(model, training, forget=listed, method="logit_mask", device="cpu").model
    torch.save(masked.state_dict(), tmp_path / "masked.pt")
    return tmp_path


def run(folder: Path, *more: str, unlearned: str = "original.pt", code: int = 0) -> str:
    given = {
        "original": folder / "original.pt",
        "unlearned": folder / unlearned,
        "arch": ARCH,
        "data": folder / "train.npz",
        "forget": folder / "b.txt",
        "validation": folder / "test.npz",
        "device": "cpu",
    }
    arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    result = CliRunner().invoke(app, [*arguments, *more], env={"COLUMNS": "80"})
    if isinstance(result.exception, ExpungeError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def trained(folder: Path, *more: str, **settings: object) -> str:
    recipe = [part for text in RECIPE for part in ("--recipe", text)]
    return run(folder, "--train-reference", *recipe, *more, **settings)  # type: ignore[arg-type]


def test_without_a_reference(folder: Path) -> None:
    shown = run(folder, "--quick", code=3)
    assert "verdict: did not forget" in shown
    assert "A measurement, not a certificate" in shown
    assert "No retrained model was given" in shown
    # the verdict comes first
    assert shown.index("verdict:") < shown.index("measurement")
    assert "it compares with the retrained model, which is not given (tow" in " ".join(shown.split())
    passed = run(folder, "--quick", unlearned="masked.pt")
    assert "verdict: forgot, as far as can be told without a retrained model" in passed


def test_references_are_trained_once_and_kept(folder: Path) -> None:
    out = folder / "out"
    shown = trained(folder, "--quick", "--out", str(out), code=3)
    assert "references: 2 trained in" in shown
    assert f"wrote {out / 'audit.json'}" in shown
    assert all(len(line) <= 80 for line in shown.partition("verdict")[2].partition("wrote")[0].splitlines())
    document = json.loads((out / "audit.json").read_text())
    assert document["verdict"]["outcomes"] == ["did not forget"]
    assert document["models"] == ["original", "unlearned", "retrained", "second_retrained"]
    assert document["references"]["trained_now"] == ["retrained", "second_retrained"]
    assert set(document["made_from"]["checkpoints"]) == {"original", "unlearned"}
    forget = next(entry for entry in document["measurements"] if entry["name"] == "forget_accuracy")
    assert forget["models"]["retrained"] == {"value": 0.0}
    assert forget["floor"] == 0.0
    assert forget["reading"] == "as before"
    kept = sorted((folder / "references").glob("*.safetensors"))
    assert len(kept) == 2
    again = trained(folder, "--quick", code=3)
    assert "references: 0 trained in 0.0 s, 2 kept from before" in again
    # the kept files are references in their own right, of this data and this list alone
    pair = ("--retrained", str(kept[0]), "--retrained-again", str(kept[1]))
    assert "verdict: did not forget" in run(folder, "--quick", *pair, code=3)
    (folder / "other.txt").write_text("0\n3\n")
    with pytest.raises(InvalidInput, match="was made for another forget set"):
        run(folder, "--quick", *pair, "--forget", str(folder / "other.txt"))
    with pytest.raises(InvalidInput, match="was made for other training data"):
        run(folder, "--quick", *pair, "--data", str(images(folder, "more", 120, 5)))


def test_true_labels_give_an_oracle(folder: Path) -> None:
    with np.load(folder / "train.npz") as read:
        content = dict(read)
    content["labels"] = content["labels"].copy()
    content["labels"][:10] = (content["labels"][:10] + 1) % 4
    np.savez(folder / "train.npz", **content)
    (folder / "b.txt").write_text("\n".join(map(str, range(10))))
    shown = trained(
        folder, "--quick", "--all", "--truth", "column:true_label", "--recipe", "schedule=constant", code=4
    )
    assert "references: 3 trained in" in shown
    assert "oracle" in shown
    assert "healed known" in shown
    assert all(len(line) <= 80 for line in shown.partition("verdict")[2].splitlines())


def test_a_population_of_the_method(folder: Path) -> None:
    """The price comes first; what is kept is not made again."""
    out = folder / "out"
    many = ("--quick", "--population", "20", "--recipe", "epochs=3", "--recipe", "batch_size=16")
    with pytest.raises(InvalidInput, match="name it with --method"):
        run(folder, *many)
    shown = run(folder, *many, "--method", "logit_mask", "--out", str(out), unlearned="masked.pt")
    said = " ".join(shown.split())
    assert "population: 60 networks are trained and 40 of them unlearn by logit_mask, in about" in said
    assert said.index("population: 60") < said.index("training a population") < said.index("verdict:")
    assert "ulira accuracy" in shown
    document = json.loads((out / "audit.json").read_text())
    assert document["population"] == {"models": 20, "method": "logit_mask", "settings": {}}
    rows = {entry["name"]: entry for entry in document["measurements"]}
    assert rows["klom_retain"]["models"]["unlearned"]["value"] >= 0
    assert 0 <= rows["ulira_auc"]["models"]["retrained"]["value"] <= 1
    # a masked logit is told from a logit that was never learned
    assert (
        rows["klom_forget"]["models"]["unlearned"]["value"]
        > rows["klom_forget"]["models"]["retrained"]["value"]
    )
    kept = sorted((folder / "references").glob("*.safetensors"))
    (folder / "report.json").write_text(json.dumps({"method": {"name": "logit_mask", "settings": {}}}))
    run(folder, *many, unlearned="masked.pt")
    assert sorted((folder / "references").glob("*.safetensors")) == kept


def test_the_whole_audit(folder: Path) -> None:
    shown = trained(folder, "--all", code=3)
    assert "verdict: did not forget" in shown
    for name in ("relearn time", "idi", "svc efficacy", "nearest mean hidden", "cost: measuring"):
        assert name in shown


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--train-reference trains what --retrained"):
        run(folder, "--train-reference", "--retrained", str(folder / "original.pt"))
    with pytest.raises(InvalidInput, match="give --train-reference or --population too"):
        run(folder, "--recipe", "epochs=3")
    with pytest.raises(InvalidInput, match="give --population too"):
        run(folder, "--method", "npo")
    with pytest.raises(InvalidInput, match="at least 3 models on each side"):
        run(folder, "--population", "8", "--method", "npo")
    with pytest.raises(InvalidInput, match="at least 8 models, got 4"):
        run(folder, "--population", "4", "--method", "npo")
    with pytest.raises(InvalidInput, match="--recipe has no field 'epoch'; did you mean 'epochs'"):
        run(folder, "--train-reference", "--recipe", "epoch=3")
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(InvalidInput, match="is there already; choose another folder"):
        run(folder, "--out", str(tmp_path))
    with pytest.raises(DataError, match="there is no data"):
        run(folder, "--validation", "nowhere")


def test_an_interruption_ends_it_in_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("expunge.repair.audit.audit", stop)
    shown = run(folder, "--out", str(folder / "out"), code=130)
    assert "references that are finished are kept" in shown
    assert not (folder / "out").exists()


def test_models_of_another_task_are_refused(folder: Path) -> None:
    torch.save(MLP(1, 8, 5, 16, "relu").state_dict(), folder / "five.pt")
    with pytest.raises(InvalidInput, match=r"five\.pt"):
        run(folder, unlearned="five.pt")
    state = torch.load(folder / "original.pt", weights_only=True)
    torch.save({name: torch.zeros_like(tensor) for name, tensor in state.items()}, folder / "original.pt")
    with pytest.raises(
        InvalidInput, match=r"original\.pt with this data found an error(?s:.)*model accuracy"
    ):
        run(folder, unlearned="masked.pt")


def test_metadata_of_other_programs_is_no_matter(folder: Path) -> None:
    state = torch.load(folder / "original.pt", weights_only=True)
    save_file(state, folder / "theirs.safetensors", {"format": "pt"})
    assert load_file(folder / "theirs.safetensors").keys() == state.keys()
    shown = run(folder, "--quick", "--retrained", str(folder / "theirs.safetensors"), code=4)
    assert "The retrained model answers 100.0% of the forgotten class" in " ".join(shown.split())
