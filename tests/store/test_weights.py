from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput, StoreError
from expunge.store.weights import WeightStore

KEY = "0123456789abcdef" * 2
OTHER = "f" * 32


def tensors() -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 4, 5, generator=made)
    return {
        "plain": image,
        "channels_last": image.contiguous(memory_format=torch.channels_last),
        "transposed": image.transpose(1, 3),
        "view": image[1:, ::2],
        "shared": image,
        "expanded": torch.arange(3).expand(4, 3),
        "mask": torch.tensor([True, False, True]),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "leaf": nn.Parameter(torch.ones(2)),
    }


def test_round_trip(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "deep" / "weights")
    assert not store.has(KEY)
    store.save(KEY, tensors(), {"method": "rem", "note": "ü"})
    assert store.has(KEY)
    assert store.path(KEY) == tmp_path / "deep" / "weights" / f"{KEY}.safetensors"
    loaded = store.load(KEY)
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].is_contiguous()
        assert not loaded[name].requires_grad
    assert store.metadata(KEY) == {"method": "rem", "note": "ü"}
    assert [path.name for path in store.folder.iterdir()] == [f"{KEY}.safetensors"]


def test_model_round_trip(tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        convolution = nn.Conv2d(3, 4, 3)
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        return nn.Sequential(convolution, nn.BatchNorm2d(4))

    store, model = WeightStore(tmp_path), build()
    store.save(KEY, model.state_dict(), {})
    other = build()
    other.load_state_dict(store.load(KEY))
    inputs = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.eval()(inputs), other.eval()(inputs))
    assert store.metadata(KEY) == {}


def test_loading_to_a_device_and_changing_in_place(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    store.save(KEY, {"w": torch.zeros(3)}, {})
    assert store.load(KEY, device="meta")["w"].device.type == "meta"
    store.load(KEY)["w"].add_(1)
    assert torch.equal(store.load(KEY)["w"], torch.zeros(3))


def test_saved_key_is_not_rewritten(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    store.save(KEY, {"w": torch.zeros(3)}, {"first": "yes"})
    before = store.path(KEY).stat()
    store.save(KEY, {"w": torch.ones(3)}, {})
    after = store.path(KEY).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert torch.equal(store.load(KEY)["w"], torch.zeros(3))
    assert store.metadata(KEY) == {"first": "yes"}


def test_truncated_or_garbage(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    store.save(OTHER, tensors(), {"method": "rem"})
    whole = store.path(OTHER).read_bytes()
    contents = [whole[:length] for length in (0, 1, 8, 9, 100, len(whole) // 2, len(whole) - 1)]
    for content in [*contents, b"\xff" * 1000, whole + b"x"]:
        store.path(KEY).write_bytes(content)
        for use in (store.load, store.metadata):
            with pytest.raises(
                StoreError,
                match=rf"{KEY}\.safetensors are truncated or unreadable \(.+\); delete that file so that it is made",
            ):
                use(KEY)
        assert store.path(KEY).read_bytes() == content


def test_missing_key(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "none")
    for use in (store.load, store.metadata):
        with pytest.raises(StoreError, match=rf"there are no weights .*{KEY}\.safetensors; save them first"):
            use(KEY)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("key", ["", "ab", "A" * 32, "g" * 32, "../" + "a" * 29, "a" * 32 + "\n"])
def test_wrong_keys(tmp_path: Path, key: str) -> None:
    with pytest.raises(
        InvalidInput, match="is not 32 lower-case hexadecimal digits; make it with fingerprint"
    ):
        WeightStore(tmp_path).path(key)


def test_wrong_contents(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    with pytest.raises(
        InvalidInput, match="'w' is of type list, expected a dense tensor; convert it or leave"
    ):
        store.save(KEY, {"w": [1.0]}, {})  # type: ignore[dict-item]
    with pytest.raises(
        InvalidInput, match=r"'w' is a tensor of layout torch\.sparse_coo and dtype torch\.float32"
    ):
        store.save(KEY, {"w": torch.eye(2).to_sparse()}, {})
    with pytest.raises(
        InvalidInput, match=f"the tensors of {KEY} have no safetensors form: .*; convert them"
    ):
        store.save(KEY, {"w": torch.zeros(1, dtype=torch.complex128)}, {})
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StoreError, match=r"\.safetensors cannot be written: .*; check the folder's permissions"
    ):
        WeightStore(tmp_path / "file").save(KEY, {"w": torch.zeros(1)}, {})
