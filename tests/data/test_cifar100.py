from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.data.cifar100 import load_cifar20, load_cifar100
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


def test_another_shape(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected 'delta' to be uint8 \(3, N, 32, 32\), found uint8 \(4, 3\)"
    ):
        load_cifar100(small(tmp_path, delta=np.zeros((4, 3), dtype=np.uint8)))
