from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.data.images import ImageSource
from expunge.errors import DataError
from expunge.inputs.arrays import load_arrays, pad_tokens
from expunge.inputs.training_data import DataOptions

LABELS = np.array([0, 1, 1, 0])


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def test_images_are_all_kept_in_order(tmp_path: Path) -> None:
    images = np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3)
    path = saved(tmp_path, images=images, labels=LABELS, is_bad=LABELS == 1, names=["a", "b", "c", "d"])
    data = load_arrays(path, DataOptions(normalise="half"))
    source = data.examples.source
    assert isinstance(source, ImageSource)
    assert torch.equal(source.images, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert (data.mean, data.std, data.named_classes) == ((0.5,) * 3, (0.5,) * 3, False)
    assert data.columns == {"is_bad": [False, True, True, False]}
    assert data.names == ("a", "b", "c", "d")
    grey = load_arrays(saved(tmp_path, images=images[..., 0] / 255, labels=LABELS), DataOptions())
    assert torch.equal(grey.examples.source.images[:, 0], torch.from_numpy(images[..., 0].copy()))  # type: ignore[attr-defined]


def test_vectors_tokens_and_named_classes(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    path = saved(tmp_path, inputs=vectors, labels=np.array(["y", "x", "x", "y"]))
    data = load_arrays(path, DataOptions())
    assert data.classes == ("x", "y")
    batch = next(data.examples.batches(4))
    torch.testing.assert_close(batch.x, torch.from_numpy(vectors).float())
    assert batch.y.tolist() == [1, 0, 0, 1]
    tokens = np.array([[1, 2], [3, 0], [4, 4], [5, 0]], dtype=np.int32)
    data = load_arrays(saved(tmp_path, inputs=tokens, labels=LABELS, classes=["no", "yes"]), DataOptions())
    assert data.sequences
    assert next(data.examples.batches(4)).x.dtype == torch.int64
    assert (data.classes, data.named_classes) == (("no", "yes"), True)


def test_the_validation_part(tmp_path: Path) -> None:
    arrays = {"inputs": np.zeros((4, 2)), "labels": LABELS}
    both = saved(tmp_path, **arrays, test_inputs=np.ones((2, 2)), test_labels=np.array([1, 0]))
    assert len(load_arrays(both, DataOptions())) == 4
    held = load_arrays(both, DataOptions(), "validation")
    assert next(held.examples.batches(9)).x.tolist() == [[1, 1], [1, 1]]
    assert len(load_arrays(saved(tmp_path, **arrays), DataOptions(), "validation")) == 4


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"labels": LABELS}, "missing inputs"),
        ({"inputs": np.zeros((4, 2))}, "missing labels"),
        ({"inputs": np.zeros((3, 2)), "labels": LABELS}, "3 inputs but 4 labels"),
        ({"inputs": np.zeros((4, 2)), "labels": LABELS * 1.0}, "labels are float64"),
        ({"inputs": np.array([[0.0], [1], [np.nan], [2]]), "labels": LABELS}, "row 2 contains NaN or inf"),
        ({"inputs": np.array([[1], [-1], [0], [0]]), "labels": LABELS}, "token ids must not be negative"),
        ({"inputs": np.zeros((4, 2), np.uint8), "labels": LABELS}, "save pixels as 'images'"),
        ({"images": np.zeros((4, 2, 2)) - 1, "labels": LABELS}, "expected \\[0, 1\\]"),
        ({"images": np.zeros((4, 2, 2), np.int64), "labels": LABELS}, "images have dtype int64"),
        ({"images": np.zeros((4, 2), np.uint8), "labels": LABELS}, "images have shape"),
        ({"inputs": np.zeros((4, 2)), "labels": LABELS, "names": ["a"]}, "1 names but 4 labels"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_arrays(saved(tmp_path, **arrays), DataOptions())


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_arrays(tmp_path / "gone.npz", DataOptions())
    path = saved(tmp_path, inputs=np.zeros((4, 2)), labels=LABELS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="truncated"):
        load_arrays(path, DataOptions())


def test_padding() -> None:
    assert pad_tokens([[1, 2, 3], [4]], 9, "it").tolist() == [[1, 2, 3], [4, 9, 9]]
    with pytest.raises(DataError, match="it: row 1 has no token"):
        pad_tokens([[1], []], 0, "it")
