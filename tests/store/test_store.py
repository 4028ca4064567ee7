from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge.errors import StoreError
from expunge.store.record import Record
from expunge.store.store import Store

RECORD = Record(
    key="1" * 32, status="done", data="d", regularity=0.0, discovery=1.0, model="m", method="npo", seed=0
)


def test_layout_and_reopening(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        store.database.add(RECORD)
        store.weights.save("2" * 32, {"w": torch.ones(1)}, {})
    assert (tmp_path / "store" / "store.sqlite").is_file()
    assert (tmp_path / "store" / "weights" / f"{'2' * 32}.safetensors").is_file()
    with Store(str(tmp_path / "store")) as store:
        assert store.database.records() == [RECORD]
        assert store.weights.has("2" * 32)
    with pytest.raises(StoreError, match="is closed"):
        store.database.keys()


def test_records_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    with Store(tmp_path / "store", url=url) as store:
        store.database.add(RECORD)
        store.weights.save("2" * 32, {"w": torch.ones(1)}, {})
    assert not (tmp_path / "store" / "store.sqlite").exists()
    with Store(tmp_path / "other", url=url) as store:
        assert store.database.records() == [RECORD]
        assert not store.weights.has("2" * 32)
