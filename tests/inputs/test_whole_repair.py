"""The pieces together, as the command uses them: files in, a repaired file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.api import unlearn
from expunge.inputs.architecture import build_architecture
from expunge.inputs.checkpoint import read_checkpoint, write_checkpoint
from expunge.inputs.checkpoint_weights import load_weights, state_to_write
from expunge.inputs.forget_list import read_forget_list
from expunge.inputs.preflight import preflight
from expunge.inputs.sources import load_training_data
from expunge.inputs.training_data import TrainingData
from expunge.training.numerics import Numerics


def train(model: nn.Module, data: TrainingData, lr: float) -> None:
    """Train until every label is learned, and no further: what is saturated has no gradient left."""
    batch = next(data.examples.batches(len(data)))
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(200):
        loss = nn.functional.cross_entropy(model(batch.x), batch.y)
        if loss.item() < 0.1:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def repair(arch: str, data: TrainingData, forget: str, path: Path, **settings: Any) -> dict[str, float]:
    checkpoint = read_checkpoint(path)
    model = build_architecture(arch, shape=data.shape, n_classes=len(data.classes))
    checkpoint = load_weights(model, checkpoint)
    bad = read_forget_list(forget, data)
    found = preflight(model, data, bad.positions, Numerics("cpu"), checkpoint=checkpoint)
    assert found.errors == []
    result = unlearn(model, found.data.examples, forget=bad.positions, device="cpu", **settings)
    out = path.with_name("repaired" + path.suffix)
    write_checkpoint(checkpoint, state_to_write(result.model, checkpoint), out)
    before, after = read_checkpoint(path), read_checkpoint(out)
    assert dict(before.names) == dict(after.names)
    assert {n: (t.shape, t.dtype) for n, t in before.state.items()} == {
        n: (t.shape, t.dtype) for n, t in after.state.items()
    }
    again = build_architecture(arch, shape=data.shape, n_classes=len(data.classes))
    before, after = load_weights(again, before), load_weights(again, after)
    # The file holds the repaired model to the last bit of the stored dtype, and not the one that came in.
    repaired = result.model.state_dict()
    assert all(torch.equal(after.state[n], repaired[n].to(t.dtype)) for n, t in before.state.items())
    assert any(not torch.equal(after.state[n], t) for n, t in before.state.items())
    assert preflight(again, data, bad.positions, Numerics("cpu")).numbers["n_logits"] == len(data.classes)
    return found.numbers


@pytest.mark.trains
def test_a_folder_of_images_and_a_list_of_files(folder: Path, tmp_path: Path) -> None:
    data = load_training_data(str(folder))
    arch = "expunge:mlp?hidden=16&activation=relu"
    torch.manual_seed(0)
    model = build_architecture(arch, shape=data.shape, n_classes=3)
    train(model, data, 0.002)
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "net.pt")
    (tmp_path / "bad.txt").write_text("bee/b1.png\nc2.png\n")
    given = {"method": "npo", "passes": 20, "lr": 0.02, "threshold": 0.0}
    numbers = repair(arch, data, str(tmp_path / "bad.txt"), tmp_path / "net.pt", **given)
    assert numbers["forget_accuracy"] == 1


@pytest.mark.trains
def test_token_ids_and_a_transformer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file

    draw = np.random.default_rng(0)
    labels = np.arange(48) % 3
    tokens = draw.integers(10, 30, (48, 6))
    tokens[:, 1] = labels + 3  # the second token tells the class
    tokens[::4, 4:] = 0
    marked = np.isin(np.arange(48), [5, 9])
    np.savez(tmp_path / "text.npz", inputs=tokens, labels=labels, is_bad=marked)
    transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    ).save_pretrained(tmp_path / "bert")
    data, arch = load_training_data(str(tmp_path / "text.npz")), f"transformers:{tmp_path}/bert"
    torch.manual_seed(0)
    model = build_architecture(arch)
    train(model, data, 0.02)
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_file(halves, tmp_path / "m.safetensors")
    given = {"method": "npo", "passes": 20, "lr": 0.01, "threshold": 0.0}
    numbers = repair(arch, data, "column:is_bad", tmp_path / "m.safetensors", **given)
    assert numbers["forget_accuracy"] == 1
