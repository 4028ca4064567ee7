from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput, UnknownName
from expunge.inputs.architecture import Preprocessing, build_architecture, preprocessing_of
from expunge.inputs.checkpoint import read_checkpoint, write_checkpoint
from expunge.inputs.checkpoint_weights import load_weights, state_to_write
from expunge.models.resnet9 import ResNet9

VIT = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
BERT = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "pad_token_id": 0,
}


def settings(values: dict[str, Any]) -> str:
    return "&".join(f"{name}={value}" for name, value in values.items())


def test_a_model_of_the_table() -> None:
    model = build_architecture("expunge:resnet9?width=8&capacity=1.0", shape=(3, 16, 16), n_classes=4)
    assert isinstance(model, ResNet9)
    assert model.settings["width"] == 8
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 4)
    own = build_architecture("expunge:mlp?n_classes=7&size=8&channels=3", shape=(1, 28, 28), n_classes=4)
    assert own(torch.randn(2, 3, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet9", r"'resnet9' is not understood; did you mean 'expunge:resnet9'\?; expected expunge:NAME"),
        ("expunge:", "is not understood"),
        ("expunge:resnet10", "unknown model 'resnet10'; did you mean 'resnet9'"),
        ("expunge:resnet9?depth=3", "does not take the settings"),
        ("nowhere.py:Net", "no such file"),
        ("json:dumps?obj=3", "made a str, expected a torch.nn.Module"),
    ],
)
def test_bad_specifications(text: str, said: str) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=said):
        build_architecture(text, shape=(3, 8, 8), n_classes=4)


@pytest.mark.parametrize("shape", [(3, 8, 9), (12,)])
def test_models_of_the_table_read_square_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="reads square images"):
        build_architecture("expunge:mlp", shape=shape, n_classes=4)


def test_a_factory(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, width=4):\n        super().__init__(nn.Linear(3, width), nn.Linear(width, 2))\n"
    )
    model = build_architecture(f"{tmp_path}/net.py:Net?width=6", shape=(3,), n_classes=2)
    assert model(torch.randn(5, 3)).shape == (5, 2)
    assert copy.deepcopy(model).state_dict()["0.weight"].shape == (6, 3)


def test_transformers_image_model_round_trip(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(**VIT, num_labels=3)
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    model = build_architecture(f"transformers:{tmp_path}", n_classes=3).eval()
    checkpoint = load_weights(model, read_checkpoint(tmp_path / "model.safetensors"))
    assert list(model.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        logits: Tensor = model(x)
        assert torch.equal(logits, theirs(pixel_values=x).logits)
        assert torch.equal(copy.deepcopy(model)(x), logits)
    write_checkpoint(checkpoint, state_to_write(model, checkpoint), tmp_path / "new" / "model.safetensors")
    (tmp_path / "new" / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "new").eval()
    with torch.no_grad():
        assert torch.equal(again(pixel_values=x).logits, logits)


def test_transformers_text_model_ignores_padding(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = build_architecture(f"transformers:BertConfig?{settings(BERT)}", n_classes=5).eval()
    assert isinstance(model, transformers.BertForSequenceClassification)
    short, padded = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4, 5, 0, 0]])
    with torch.no_grad():
        assert model(short).shape == (1, 5)
        torch.testing.assert_close(model(padded), model(short))
    config = transformers.RobertaConfig(**{**BERT, "pad_token_id": 1}, num_labels=2)
    config.save_pretrained(tmp_path)
    other = build_architecture(f"transformers:{tmp_path}").eval()
    with torch.no_grad():
        torch.testing.assert_close(other(torch.tensor([[3, 0, 5, 1]])), other(torch.tensor([[3, 0, 5]])))


def test_a_transformers_model_from_a_factory_returns_logits(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "vit.py").write_text(
        "from transformers import ViTConfig, ViTForImageClassification, ViTModel\n"
        f"def make(kind=ViTForImageClassification):\n    return kind(ViTConfig(**{VIT!r}))\n"
        "def body():\n    return make(ViTModel)\n"
    )
    assert build_architecture(f"{tmp_path}/vit.py:make")(torch.randn(2, 1, 8, 8)).shape == (2, 2)
    with pytest.raises(InvalidInput, match="ViTModel returns no logits"):
        build_architecture(f"{tmp_path}/vit.py:body")(torch.randn(2, 1, 8, 8))


def test_number_of_labels(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ViTConfig(**VIT, num_labels=6).save_pretrained(tmp_path)

    def labels(text: str) -> int:
        model = build_architecture(text, n_classes=3)
        return int(model.config.num_labels)  # type: ignore[union-attr, arg-type]

    assert labels(f"transformers:{tmp_path}") == 6
    assert labels(f"transformers:{tmp_path}?num_labels=4") == 4
    assert labels(f"transformers:ViTConfig?{settings(VIT)}") == 3
    transformers.ViTConfig(**VIT, dtype="float16").save_pretrained(tmp_path)
    model = build_architecture(f"transformers:{tmp_path}")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_bad_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InvalidInput, match=r"holds no config\.json"):
        build_architecture(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "vit", ')
    with pytest.raises(InvalidInput, match="finds no configuration"):
        build_architecture(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **VIT}))
    with pytest.raises(InvalidInput, match=r"has no setting 'hidden_sise'; did you mean 'hidden_size'\?"):
        build_architecture(f"transformers:{tmp_path}?hidden_sise=3")
    with pytest.raises(InvalidInput, match=r"ViTConfig has no setting 'hidden_sise'"):
        build_architecture("transformers:ViTConfig?hidden_sise=3")
    with pytest.raises(
        InvalidInput, match=r"transformers cannot build 'BertConfig'|does not take the settings"
    ):
        build_architecture("transformers:BertConfig?hidden_size=10&num_attention_heads=3")
    with pytest.raises(InvalidInput, match="has no classifier for a 'vits' model"):
        build_architecture("transformers:VitsConfig")
    with pytest.raises(InvalidInput, match=r"gone: no such folder"):
        build_architecture(f"transformers:{tmp_path}/gone")
    with pytest.raises(InvalidInput, match="finds no configuration 'nobody/nothing'"):
        build_architecture("transformers:nobody/nothing")


def test_timm(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        InvalidInput, match=r"needs timm, which cannot be .*; run: pip install 'expunge\[timm\]'"
    ):
        build_architecture("timm:resnet18")

    def create_model(name: str, pretrained: bool, in_chans: int = 3, num_classes: int = 9) -> nn.Module:
        assert not pretrained
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        model = nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 4, num_classes))
        model.default_cfg = {"mean": (0.5,), "std": (0.25,), "input_size": (1, 2, 2)}  # type: ignore[assignment]
        return model

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    model = build_architecture("timm:tiny", shape=(1, 2, 2), n_classes=3)
    assert model(torch.randn(2, 1, 2, 2)).shape == (2, 3)
    assert build_architecture("timm:tiny?num_classes=4")(torch.randn(2, 3, 2, 2)).shape == (2, 4)
    assert preprocessing_of("timm:tiny") == Preprocessing((0.5,), (0.25,), 2)
    with pytest.raises(InvalidInput, match="timm cannot make 'tinny'"):
        build_architecture("timm:tinny")


def test_preprocessing_of_a_folder(tmp_path: Path) -> None:
    assert preprocessing_of(f"transformers:{tmp_path}") == Preprocessing()
    file = tmp_path / "preprocessor_config.json"
    file.write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 24, "width": 24}})
    )
    assert preprocessing_of(f"transformers:{tmp_path}") == Preprocessing((0.5,) * 3, (0.25,) * 3, 24)
    file.write_text(json.dumps({"do_normalize": False, "size": 16}))
    assert preprocessing_of(f"transformers:{tmp_path}") == Preprocessing((0.0,), (1.0,), 16)
    file.write_text("{")
    with pytest.raises(InvalidInput, match="is no JSON"):
        preprocessing_of(f"transformers:{tmp_path}")
    assert preprocessing_of("expunge:mlp") == Preprocessing()
