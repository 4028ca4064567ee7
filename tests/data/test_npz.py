from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.data.images import Augmentation
from expunge.data.loading import load_data
from expunge.data.npz import load_npz, read_arrays
from expunge.errors import DataError


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def whole(**changes: Any) -> dict[str, Any]:
    arrays = {
        "images": pixels(6, 8, 8, 3),
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": pixels(3, 8, 8, 3),
        "test_labels": np.array([2, 1, 0]),
    }
    return arrays | changes


def test_training_and_test_part_are_read(tmp_path: Path) -> None:
    arrays = whole(classes=np.array(["cat", "dog", "größer"]))
    data = load_npz(saved(tmp_path, **arrays))
    assert data.name == "mine.npz"
    assert data.classes == ("cat", "dog", "größer")
    np.testing.assert_array_equal(data.train_images.numpy(), arrays["images"].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.test_images.numpy(), arrays["test_images"].transpose(0, 3, 1, 2))
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.train_labels.dtype == torch.int64
    assert data.test_labels.tolist() == [2, 1, 0]
    assert data.mean == pytest.approx((arrays["images"] / 255).mean(axis=(0, 1, 2)))
    assert data.std == pytest.approx((arrays["images"] / 255).std(axis=(0, 1, 2)))
    assert data.augmentation == Augmentation()
    assert load_data(str(tmp_path / "mine.npz")).content == data.content


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 1, 8, 9), (5, 1, 8, 9)),
        ((5, 3, 8, 9), (5, 3, 8, 9)),
        ((5, 3, 8, 3), (5, 3, 3, 8)),
    ],
)
def test_the_three_layouts(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    images = pixels(*shape)
    arrays = whole(images=images, labels=np.arange(5) % 3, test_images=images, test_labels=np.arange(5) % 3)
    data = load_npz(saved(tmp_path, **arrays))
    assert data.train_images.shape == expected
    assert data.train_images.is_contiguous()
    for i in range(5):
        image = images[i].reshape(expected[1:]) if shape[-1] not in (1, 3) else np.moveaxis(images[i], -1, 0)
        np.testing.assert_array_equal(data.train_images[i].numpy(), image)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_come_back_as_the_bytes_they_were(tmp_path: Path, dtype: type) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(6, axis=0)
    arrays = whole(images=(every / 255).astype(dtype), test_images=every[:3])
    np.testing.assert_array_equal(load_npz(saved(tmp_path, **arrays)).train_images[:, 0].numpy(), every)


def test_float_images_are_rounded_to_the_nearest_byte(tmp_path: Path) -> None:
    images = np.zeros((6, 8, 8))
    images[0, 0, :4] = [0.999, 0.001, 100.4 / 255, 100.6 / 255]
    data = load_npz(saved(tmp_path, **whole(images=images, test_images=pixels(3, 8, 8))))
    assert data.train_images[0, 0, 0, :4].tolist() == [255, 0, 100, 101]


def test_without_a_test_part_a_fifth_of_every_class_is_held_out(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [1] * 20 + [2] * 3 + [3] * 2)
    images = np.arange(75, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(4, axis=2)
    path = saved(tmp_path, images=images, labels=labels)
    data = load_npz(path)
    assert data.test_labels.bincount(minlength=4).tolist() == [10, 4, 1, 0]
    assert data.train_labels.bincount(minlength=4).tolist() == [40, 16, 2, 2]
    held, kept = data.test_images[:, 0, 0, 0], data.train_images[:, 0, 0, 0]
    assert sorted(held.tolist() + kept.tolist()) == list(range(75))
    assert data.test_labels.tolist() == labels[held.numpy()].tolist()
    assert data.train_labels.tolist() == labels[kept.numpy()].tolist()
    assert held[:10].tolist() != list(range(10))  # drawn, not the first of each class
    assert load_npz(path).content == data.content
    assert data.classes == ("0", "1", "2", "3")


def spoilt(value: float) -> np.ndarray:
    images = np.full((6, 8, 8, 3), 0.5)
    images[4, 1, 2, 0] = value
    images[5, 1, 2, 0] = value
    return images


UNUSABLE = {
    r"image 4 contains NaN or inf \(2 images do\)": {"images": spoilt(np.nan)},
    "image 4 contains NaN or inf": {"images": spoilt(-np.inf)},
    r"float64 in \[0.5, 255\]; expected \[0, 1\]; scale them": {"images": spoilt(255.0)},
    r"float64 in \[-1, 0.5\]; expected \[0, 1\]": {"images": spoilt(-1.0)},
    r"images have dtype int64; expected uint8 .* convert them": {"images": np.zeros((6, 8, 8), int)},
    r"images have shape \(6, 8\); expected \(N, H, W\)": {"images": pixels(6, 8)},
    r"images have shape \(6, 8, 8, 2\); expected": {"images": pixels(6, 8, 8, 2)},
    r"images have shape \(0, 1, 8, 8\); expected .* nothing empty": {"images": pixels(0, 8, 8)},
    "labels are float64 .* expected integers": {"labels": np.zeros(6)},
    r"labels are int64 \(6, 1\); expected integers of shape \(N,\)": {"labels": np.zeros((6, 1), int)},
    r"label -1 at position 2 is negative \(1 are\)": {"labels": np.array([0, 1, -1, 0, 1, 2])},
    "6 images but 5 labels; expected one label an image": {"labels": np.zeros(5, int)},
    "3 test_images but 6 test_labels": {"test_labels": np.zeros(6, int)},
    "test_labels: label -3 at position 0": {"test_labels": np.array([-3, 0, 0])},
    r"the largest label is 4711, but there are only 9 images": {"labels": np.array([0, 1, 2, 0, 1, 4711])},
    "the largest label is 2, but 'classes' has 2 names": {"classes": np.array(["cat", "dog"])},
    r"classes are int64 \(3,\); expected a 1-D array of strings": {"classes": np.arange(3)},
    r"classes are <U1 \(1, 3\); expected": {"classes": np.array([["a", "b", "c"]])},
    r"training images are \(3, 8, 8\) but test images are \(1, 8, 8\)": {"test_images": pixels(3, 8, 8)},
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path, message: str) -> None:
    with pytest.raises(DataError, match=rf"mine\.npz: .*{message}"):
        load_npz(saved(tmp_path, **whole(**UNUSABLE[message])))


def test_images_of_unequal_size_are_refused_unpickled(tmp_path: Path) -> None:
    images = np.empty(6, dtype=object)
    images[:] = [pixels(size, size) for size in (4, 5, 6, 7, 8, 9)]
    with pytest.raises(DataError, match=r"'images' is an array of objects.*images must have one size"):
        load_npz(saved(tmp_path, **whole(images=images)))


def test_half_a_test_part_is_refused(tmp_path: Path) -> None:
    arrays = whole()
    del arrays["test_labels"]
    with pytest.raises(DataError, match="found 'test_images' alone; expected both"):
        load_npz(saved(tmp_path, **arrays))


def test_too_few_images_to_hold_any_out(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no class with enough images .* add 'test_images' and 'test_labels'"
    ):
        load_npz(saved(tmp_path, images=pixels(4, 8, 8), labels=np.array([0, 0, 1, 1])))


def test_missing_arrays_are_named_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_npz(saved(tmp_path, images=pixels(4, 8, 8), lables=np.zeros(4)))
    assert "missing labels; expected images, labels and optionally test_images" in str(caught.value)
    assert "found images, lables;" in str(caught.value)
    with pytest.raises(DataError, match="missing a; expected a, found nothing"):
        read_arrays(saved(tmp_path), ["a"])


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.npz: no such file"):
        load_npz(tmp_path / "absent.npz")
    content = saved(tmp_path, **whole()).read_bytes()
    path = tmp_path / "bad.npz"
    for bad in (b"", b"PK", b"not a zip file", b"\x80\x04K\x01.", content[:200], content[:-10]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"bad\.npz: expected a .npz file, found one that is truncated"):
            load_npz(path)
    with pytest.raises(DataError, match=r"expected a .npz file"):
        load_npz(tmp_path)
    with path.open("wb") as file:
        np.save(file, pixels(3, 3))
    with pytest.raises(DataError, match=r"found a single array, expected a .npz file"):
        load_npz(path)


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **whole())
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="truncated, damaged or of another kind"):
        load_npz(path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"text")
        archive.writestr("labels.npy", b"text")
    with pytest.raises(DataError, match="truncated, damaged or of another kind"):
        load_npz(path)
