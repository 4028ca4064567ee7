from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.data.cifar import load_cifar20, load_cifar100
from expunge.errors import DataError
from expunge.tasks.forgetting import ForgetSubclass

SHARED = Path(os.environ.get("EXPUNGE_DATA", "../shared/data"))
needs_data = pytest.mark.skipif(
    not (SHARED / "cifar100" / "test.npz").is_file(), reason="no cifar100 in $EXPUNGE_DATA"
)


@needs_data
def test_real_images() -> None:
    fine, coarse = load_cifar100(SHARED), load_cifar20(SHARED)
    assert len(fine.train_labels) == 8000
    assert torch.bincount(fine.test_labels).tolist() == [20] * 100
    assert torch.equal(fine.train_images, coarse.train_images)
    assert coarse.train_fine is not None
    assert torch.equal(coarse.train_fine, fine.train_labels)
    assert torch.bincount(coarse.train_labels).tolist() == [400] * 20
    # rocket is one of the vehicles, as in the published experiments: 69 -> 19
    assert set(coarse.train_labels[coarse.train_fine == 69].tolist()) == {19}
    problem = ForgetSubclass(fine=69).build(coarse)
    assert len(problem.split.forget_positions) == 80
    assert len(problem.truth.sets["siblings_test"]) == 80
    assert len(problem.truth.sets["forget_test"]) == 20


def small(folder: Path, **changed: np.ndarray) -> Path:
    (folder / "cifar100").mkdir()
    arrays = {
        "delta": np.zeros((3, 4, 32, 32), dtype=np.uint8),
        "fine_labels": np.zeros(4, dtype=np.uint8),
        "coarse_labels": np.zeros(4, dtype=np.uint8),
    }
    np.savez(folder / "cifar100" / "test.npz", **(arrays | changed))
    return folder


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar-100-python.*or, in the compact form"):
        load_cifar20(tmp_path)
    with pytest.raises(DataError, match="found 4 images, 4 fine and 3 coarse labels; get the file again"):
        load_cifar20(small(tmp_path, coarse_labels=np.zeros(3, dtype=np.uint8)))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"fine_labels": np.zeros(4)}, r"'fine_labels' to be integers \(N,\), found float64 \(4,\)"),
        (
            {"coarse_labels": np.zeros((4, 1), int)},
            r"'coarse_labels' to be integers \(N,\), found int64 \(4, 1\)",
        ),
    ],
)
def test_labels_of_another_kind(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=rf"test\.npz: expected {message}; get the file again"):
        load_cifar100(small(tmp_path, **arrays))


def test_original_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    contents: dict[str, dict[bytes, object]] = {
        name: {b"data": pixels, b"fine_labels": fine, b"coarse_labels": [label // 5 for label in fine]}
        for name, fine in (("train", [99, 3, 3, 7, 0, 1]), ("test", [0, 1, 2, 3, 4, 5]))
    }
    for name in contents:
        (folder / name).touch()
    monkeypatch.setattr("expunge.data.cifar.read_inert", lambda path: contents[path.name])
    data = load_cifar20(tmp_path)
    np.testing.assert_array_equal(data.train_images.numpy(), pixels.reshape(6, 3, 32, 32))
    assert data.train_fine is not None
    assert data.train_fine.tolist() == load_cifar100(tmp_path).train_labels.tolist() == [99, 3, 3, 7, 0, 1]
    assert data.train_labels.tolist() == [19, 0, 0, 1, 0, 0]
    assert data.test_labels.tolist() == [0, 0, 0, 0, 0, 1]
    del contents["test"][b"coarse_labels"]
    with pytest.raises(DataError, match="test: expected 'coarse_labels' to be a list of ints"):
        load_cifar20(tmp_path)


def test_another_shape(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected 'delta' to be uint8 \(3, N, 32, 32\), found uint8 \(4, 3\)"
    ):
        load_cifar100(small(tmp_path, delta=np.zeros((4, 3), dtype=np.uint8)))
