from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from expunge.data.examples import Examples
from expunge.data.mapped import MappedSource
from expunge.errors import StoreError
from expunge.inputs.pictures import load_image_folder
from expunge.inputs.provenance import code_hash, data_hash, file_hash, provenance
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.methods.npo import NPO


def test_hashes_follow_content(tmp_path: Path, named: TrainingData) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"weights")
    positions = torch.tensor([1, 2])
    found = provenance(path, named, positions, NPO(), {"seed": 0})
    assert found.checkpoint == hashlib.sha256(b"weights").hexdigest() == file_hash(path)
    assert found == provenance(path, named, positions, NPO(), {"seed": 0})
    other = provenance(path, named, torch.tensor([1, 3]), NPO(passes=3), {"seed": 0})
    assert other.forget != found.forget
    assert other.settings != found.settings
    assert (other.data, other.code) == (found.data, found.code)
    assert set(found.versions) == {"expunge", "torch", "numpy", "python"}
    options = [DataOptions(), DataOptions(root=tmp_path, memory=1), DataOptions(size=8)]
    first, moved, resized = (provenance(path, named, positions, given).settings for given in options)
    assert first == moved != resized
    assert code_hash() == found.code
    with pytest.raises(StoreError, match="cannot be read"):
        file_hash(tmp_path / "gone")


def test_data_differs_by_input_label_and_name(folder: Path, named: TrainingData) -> None:
    labels = named.examples.labels.clone()
    labels[0] = 2
    hashes = {
        data_hash(named),
        data_hash(replace(named, examples=named.examples.relabel(labels))),
        data_hash(replace(named, names=())),
        data_hash(load_image_folder(folder, DataOptions())),
        data_hash(load_image_folder(folder, DataOptions(normalise="half"))),
    }
    assert len(hashes) == 5
    rows = torch.utils.data.TensorDataset(torch.eye(3), torch.arange(3))
    mapped = TrainingData(Examples.all_of(MappedSource(rows), torch.arange(3), 3), ("a", "b", "c"))
    assert data_hash(mapped) == data_hash(mapped)
