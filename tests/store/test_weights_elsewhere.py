from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from expunge.errors import StoreError
from expunge.store.store import Store
from expunge.store.weights import CannotWrite, WeightStore

KEY = "0123456789abcdef" * 2


@pytest.fixture
def url() -> Iterator[str]:
    made = f"memory://expunge-{uuid.uuid4().hex}/deep/weights"
    yield made
    memory = fsspec.filesystem("memory")
    if memory.exists(made):
        memory.rm(made, recursive=True)


def names(url: str) -> list[str]:
    return [entry.rpartition("/")[2] for entry in fsspec.filesystem("memory").ls(url, detail=False)]


def test_round_trip(url: str) -> None:
    store = WeightStore(url)
    assert store.folder == url
    assert store.path(KEY) == f"{url}/{KEY}.safetensors"
    assert not store.has(KEY)
    store.save(KEY, {"w": torch.arange(3.0), "empty": torch.zeros(0, 2)}, {"method": "rem", "note": "ü"})
    again = WeightStore(store.folder)
    assert again.has(KEY)
    assert torch.equal(again.load(KEY)["w"], torch.arange(3.0))
    assert again.metadata(KEY) == {"method": "rem", "note": "ü"}
    again.save(KEY, {"w": torch.zeros(3)}, {})
    assert torch.equal(store.load(KEY)["w"], torch.arange(3.0))
    assert names(url) == [f"{KEY}.safetensors"]


def test_missing_and_truncated(url: str) -> None:
    store = WeightStore(url)
    for use in (store.load, store.metadata):
        with pytest.raises(
            StoreError, match=rf"there are no weights memory://.*{KEY}\.safetensors; save them"
        ):
            use(KEY)
    store.save(KEY, {"w": torch.zeros(3)}, {"a": "b"})
    memory = fsspec.filesystem("memory")
    whole = memory.cat_file(str(store.path(KEY)))
    for content in (b"", whole[:4], whole[:30], whole[:-1], whole + b"x", b"\xff" * 100):
        memory.pipe_file(str(store.path(KEY)), content)
        for use in (store.load, store.metadata):
            with pytest.raises(StoreError, match=r"are truncated or unreadable \(.+\); delete that file so"):
                use(KEY)


def test_a_write_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = WeightStore(url)
    kind = type(fsspec.filesystem("memory"))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("quota exceeded")  # packages raise their own

    with monkeypatch.context() as patched:
        patched.setattr(kind, "mv", fail)
        with pytest.raises(
            CannotWrite, match=r"cannot be written: RuntimeError: quota exceeded; .* give the same"
        ):
            store.save(KEY, {"w": torch.zeros(3)}, {})
    assert names(url) == []
    with monkeypatch.context() as patched:
        patched.setattr(kind, "isfile", fail)
        with pytest.raises(StoreError, match="cannot be looked up: RuntimeError: quota exceeded; check that"):
            store.has(KEY)


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    store = WeightStore(f"file://{tmp_path}/deep/weights")
    store.save(KEY, {"w": torch.zeros(3)}, {})
    assert store.path(KEY) == tmp_path / "deep" / "weights" / f"{KEY}.safetensors"
    assert WeightStore(tmp_path / "deep" / "weights").has(KEY)


@pytest.mark.parametrize(
    ("url", "text"), [("nosuch://bucket", "Protocol not known: nosuch"), ("s3://bucket/x", "Install s3fs")]
)
def test_places_that_cannot_be_used(url: str, text: str) -> None:
    if url.startswith("s3") and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(
        StoreError, match=f"place '{url}' for weights cannot be used: .*{text}.*; install the"
    ):
        WeightStore(url)


def test_weights_elsewhere(tmp_path: Path, url: str) -> None:
    with Store(tmp_path / "store", weights=url) as store:
        store.weights.save(KEY, {"w": torch.ones(1)}, {})
        assert store.weights.folder == url
    with Store(tmp_path / "other", weights=url) as store:
        assert store.weights.has(KEY)
    with Store(tmp_path / "other", weights=tmp_path / "w") as store:
        assert store.weights.folder == tmp_path / "w"
    assert not (tmp_path / "store" / "weights").exists()
