from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge.repair.clean_files import pretrained_files
from expunge.repair.job import Job


def job(arch: str, checkpoint: str = "w.safetensors") -> Job:
    return Job(checkpoint=Path(checkpoint), arch=arch, data="a.csv", forget="a.txt")


def test_other_architectures_have_a_checkpoint_alone() -> None:
    assert job("net.py:Net", "w.pth").written == "checkpoint.pth"
    assert job("transformers:BertConfig", "w.bin").written == "checkpoint.bin"
    assert pretrained_files(job("net.py:Net").pretrained, "x") == {}


def test_the_folder_loads_as_it_is(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=3,
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Mine\n")
    (tmp_path / "model" / "vocab.txt").write_text("[PAD]\n")
    asked = job(f"transformers:{tmp_path / 'model'}")
    files = pretrained_files(asked.pretrained, "2 of 9 training rows were taken out.")
    assert asked.written == "model.safetensors"
    assert sorted(files) == ["README.md", "config.json", "vocab.txt"]
    assert files["README.md"].decode().startswith("# Mine\n\n## Repaired\n\n2 of 9 training rows")
    out = tmp_path / "out"
    out.mkdir()
    for name, content in files.items():
        (out / name).write_bytes(content)
    (out / asked.written).write_bytes((tmp_path / "model" / "model.safetensors").read_bytes())
    again = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
