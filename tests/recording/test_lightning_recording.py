from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from expunge.errors import InvalidInput
from expunge.recording.recording import read_recording

lightning = pytest.importorskip("pytorch_lightning")

LABELS = torch.arange(20) % 2


class Module(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 2)
        self.seen: list[tuple[int, torch.Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y, row = batch
        logits = self.model(x)
        self.seen += zip(row.tolist(), logits.detach().softmax(1), strict=True)
        return nn.functional.cross_entropy(logits, y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.model(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: Any, callback: Any, folder: Path) -> None:
    data = TensorDataset(torch.randn(20, 3), LABELS, torch.arange(20))
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[callback], default_root_dir=folder, logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(data, 6, shuffle=True), DataLoader(data, 10))


def test_logits_are_those_of_the_examples_in_training(tmp_path: Path) -> None:
    from expunge import LightningRecording

    module, path = Module(), tmp_path / "a.safetensors"
    fit(module, LightningRecording(LABELS, path, network="model"), tmp_path)
    found = read_recording(path, LABELS, 2)
    assert found["seen"].tolist() == [2.0] * 20
    for row in range(20):
        mean = torch.stack([p for at, p in module.seen if at == row]).mean(0)
        assert torch.allclose(found["probabilities"][row], mean, atol=1e-3)


def test_a_module_whose_logits_are_not_seen_is_told(tmp_path: Path) -> None:
    from expunge import LightningRecording

    with pytest.raises(InvalidInput, match="name the submodule that training_step calls: network='model'"):
        fit(Module(), LightningRecording(LABELS, tmp_path / "a.safetensors"), tmp_path)
