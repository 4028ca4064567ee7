from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from expunge.recording.recording import read_recording

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="the trainer of transformers needs accelerate")

LABELS = torch.arange(20) % 2


class Texts(Dataset[Any]):
    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, row: int) -> Any:
        return {"input_ids": torch.tensor([1 + row, 3]), "labels": LABELS[row]}


@pytest.mark.parametrize(
    "form", [{}, {"return_dict": False, "output_hidden_states": True}], ids=["named", "tuple"]
)
def test_logits_are_those_of_the_examples_in_training(tmp_path: Path, form: dict[str, bool]) -> None:
    from expunge import HuggingFaceRecording

    config = transformers.BertConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **form,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    before: list[tuple[int, torch.Tensor]] = []

    def keep(_: Any, inputs: Any, named: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            logits = output[1] if form else output.logits
            before.extend(zip(named["input_ids"][:, 0].tolist(), logits.detach().softmax(1), strict=True))

    model.register_forward_hook(keep, with_kwargs=True)
    path = tmp_path / "a.safetensors"
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, per_device_train_batch_size=6, use_cpu=True, report_to=[],
        save_strategy="no", eval_strategy="epoch", disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(
        model, arguments, train_dataset=Texts(), eval_dataset=Texts(),
        callbacks=[HuggingFaceRecording(LABELS, path)],
    ).train()  # fmt: skip
    found = read_recording(path, LABELS, 2)
    assert found["seen"].tolist() == [2.0] * 20
    for row in range(20):
        mean = torch.stack([p for token, p in before if token == 1 + row]).mean(0)
        assert torch.allclose(found["probabilities"][row], mean, atol=1e-3)
