"""Networks of timm and data of the Hugging Face hub: by name, without either at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.errors import DataError, InvalidInput
from expunge.inputs.architecture import build_architecture, preprocessing_of
from expunge.inputs.sources import load_training_data, load_validation_data
from expunge.inputs.training_data import DataOptions

TIMM = """
from torch import nn

def create_model(name, pretrained=False, in_chans=3, num_classes=1000, **settings):
    assert not pretrained
    if name != "resnet_small":
        raise RuntimeError(f"Unknown model ({name})")
    model = nn.Sequential(nn.Conv2d(in_chans, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(4, num_classes))
    model.default_cfg = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2), "input_size": (3, 24, 24)}
    return model.half()
"""


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Put a package called timm in front of what is installed."""
    (tmp_path / "site" / "timm").mkdir(parents=True)
    (tmp_path / "site" / "timm" / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "timm", raising=False)


@pytest.fixture(autouse=True)
def _forget_timm() -> Any:
    yield
    sys.modules.pop("timm", None)


def test_a_network_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, TIMM)
    model = build_architecture("timm:resnet_small", shape=(1, 8, 8), n_classes=5)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found = preprocessing_of("timm:resnet_small")
    assert (found.mean, found.std, found.size) == ((0.4,) * 3, (0.2,) * 3, 24)
    with pytest.raises(
        InvalidInput, match=r"timm cannot make 'resnet_smal' .*timm\.list_models\(\) names those"
    ):
        build_architecture("timm:resnet_smal")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import a_torchvision_nobody_has", "No module named 'a_torchvision_nobody_has'"),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "operator torchvision::nms does not exist",
        ),
    ],
)
def test_timm_without_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    package(tmp_path, monkeypatch, content)
    with pytest.raises(
        InvalidInput,
        match=rf"'timm:x' needs timm, which cannot be imported \({said}\); run: pip install 'expunge\[timm\]'",
    ):
        build_architecture("timm:x")


@pytest.mark.parametrize("text", ["datasets:owner/name", "rows.csv"])
def test_tables_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,label\n0.5,1\n")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        InvalidInput, match=r"needs datasets, which cannot be .*pip install 'expunge\[data\]'"
    ):
        load_training_data(text)


@pytest.mark.parametrize("text", ["transformers:BertConfig", "transformers:owner/name"])
def test_networks_without_the_library(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        InvalidInput, match=r"needs transformers, which cannot be .*pip install 'expunge\[text\]'"
    ):
        build_architecture(text)


def test_pictures_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InvalidInput, match=r"reading images needs pillow, .*pip install 'expunge\[data\]'"):
        load_training_data(str(folder))


@pytest.fixture
def hub_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder owner/name in the working folder, which the library takes for the data set of that name."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for part, count in (("train", 6), ("test", 3)):
        lines = [f"{row + 0.5},{row % 3},{part}" for row in range(count)]
        (tmp_path / "owner" / "name" / f"{part}.csv").write_text("\n".join(["a,label,part", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    return "datasets:owner/name"


def test_a_name_with_its_splits(hub_like: str) -> None:
    data = load_training_data(hub_like)
    assert len(data) == 6
    assert list(data.columns["part"]) == ["train"] * 6
    assert next(data.examples.batches(6)).x[:, 0].tolist() == [row + 0.5 for row in range(6)]
    assert len(load_validation_data(hub_like, DataOptions(), data)) == 3
    with pytest.raises(DataError, match=r"no split 'dev'; it has train, test, name one with --split"):
        load_training_data(hub_like, DataOptions(split="dev"))


def test_a_name_that_is_only_on_the_hub(hub_like: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code with the download replaced: what is asked of the library, and what is made of its answer."""
    import datasets

    local, asked = datasets.load_dataset("owner/name"), []

    def load_dataset(path: str, **settings: Any) -> Any:
        asked.append((path, settings))
        return local

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_training_data("datasets:fancy/things?name=small&revision=v2")
    assert asked == [("fancy/things", {"name": "small", "revision": "v2"})]
    assert len(data) == 6


def test_training_data_is_no_validation_data(hub_like: str) -> None:
    data = load_training_data("owner/name/train.csv")
    with pytest.raises(
        DataError, match=r"train\.csv holds the training data itself; give data that the model was not"
    ):
        load_validation_data("owner/name/train.csv", DataOptions(), data)
    assert len(load_validation_data("owner/name/test.csv", DataOptions(), data)) == 3
