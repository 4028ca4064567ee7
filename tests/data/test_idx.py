from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.data.idx import load_fashion_mnist, load_mnist, read_idx
from expunge.data.images import Augmentation, ImageData
from expunge.data.location import data_folder
from expunge.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_set(folder: Path, arrays: Sequence[np.ndarray], *, packed: bool) -> None:
    folder.mkdir(parents=True)
    for name, array in zip(FILES, arrays, strict=True):
        content = idx_bytes(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def small_set() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [
        draw.integers(0, 256, (20, 28, 28)),
        np.arange(20) % 10,
        draw.integers(0, 256, (10, 28, 28)),
        np.arange(10)[::-1],
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_every_number_lands_where_the_format_puts_it(tmp_path: Path, packed: bool) -> None:
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4) * 10 % 256
    content = idx_bytes(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(path)
    assert read.dtype == torch.uint8
    assert read.tolist() == array.tolist()


def test_a_truncated_file_names_file_and_both_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(idx_bytes(np.random.default_rng(0).integers(0, 256, (7, 5)))[:-8])
    with pytest.raises(DataError, match=r"cut: expected 47 bytes .* found 39 bytes.*download the file again"):
        read_idx(path)


@pytest.mark.parametrize("missing", [8, 12])
def test_a_packed_file_that_breaks_off(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "cut"
    # the last 8 bytes are checksum and length
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((3, 4))))[:-missing])
    with pytest.raises(DataError, match=r"cut: expected a whole gzip file.*download the file again"):
        read_idx(path)


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(idx_bytes(np.zeros(5)) + b"x")
    with pytest.raises(DataError, match=r"expected 13 bytes .* found 14 bytes"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unsigned bytes .* found nothing"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "unsigned bytes .* found 00 00 0d 01"),
        (b"\x00\x00\x08\x00", "unsigned bytes .* found 00 00 08 00"),
        (b"<html>", "unsigned bytes .* found 3c 68 74 6d"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x01", "16 bytes .*found 8 bytes"),
        (b"\x1f\x8b no gzip at all", "a whole gzip file"),
    ],
)
def test_what_is_no_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"bad: expected .*{message}.*; download the file again"):
        read_idx(path)


def test_an_unreadable_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: expected a readable idx file, but No such file"):
        read_idx(tmp_path / "absent")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", [True, False])
def test_the_four_files_make_a_data_set(tmp_path: Path, packed: bool, below: bool) -> None:
    arrays = small_set()
    folder = tmp_path / "mnist"
    write_set(folder, arrays, packed=packed)
    data = load_mnist(tmp_path if below else folder)
    assert data.name == "mnist"
    assert data.shape == (1, 28, 28)
    assert data.classes == tuple("0123456789")
    assert data.augmentation == Augmentation()
    np.testing.assert_array_equal(data.train_images[:, 0].numpy(), arrays[0])
    np.testing.assert_array_equal(data.test_images[:, 0].numpy(), arrays[2])
    assert data.train_labels.dtype == torch.int64
    assert data.train_labels.tolist() == arrays[1].tolist()
    assert data.test_labels.tolist() == arrays[3].tolist()
    assert data.mean == pytest.approx([arrays[0].mean() / 255])
    assert data.std == pytest.approx([arrays[0].std() / 255])


def test_fashion_has_its_folder_classes_and_augmentation(tmp_path: Path) -> None:
    write_set(tmp_path / "fashion_mnist", small_set(), packed=True)
    data = load_fashion_mnist(tmp_path)
    assert data.name == "fashion_mnist"
    assert data.classes[0] == "T-shirt/top"
    assert data.classes[9] == "Ankle boot"
    assert data.augmentation == Augmentation(pad=2, flip=True)


@pytest.mark.parametrize(
    ("position", "array", "message"),
    [
        (
            0,
            np.zeros((20, 28, 27)),
            r"train-images.*expected images of shape \(N, 28, 28\), found \(20, 28, 27\)",
        ),
        (2, np.zeros(10), r"t10k-images.*expected images of shape \(N, 28, 28\), found \(10,\)"),
        (0, np.zeros((0, 28, 28)), r"expected images of shape \(N, 28, 28\), found \(0, 28, 28\)"),
        (3, np.zeros((10, 1)), r"t10k-labels.*expected labels of shape \(N,\), found \(10, 1\)"),
        (1, np.zeros(19), "20 train images but 19 labels"),
        (1, np.full(20, 10), r"labels must lie in 0\.\.9"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, position: int, array: np.ndarray, message: str
) -> None:
    arrays = small_set()
    arrays[position] = array
    write_set(tmp_path / "mnist", arrays, packed=False)
    with pytest.raises(DataError, match=message):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("load", "beginning", "message"),
    [
        (load_fashion_mnist, "5041921314353617", "of fashion_mnist, found those of mnist"),
        (load_mnist, "9003027255095579", "of mnist, found those of fashion_mnist"),
    ],
)
def test_files_of_the_sister_set_are_refused(
    tmp_path: Path, load: Callable[[Path], ImageData], beginning: str, message: str
) -> None:
    arrays = small_set()
    arrays[1][:16] = [int(digit) for digit in beginning]
    write_set(tmp_path / "files", arrays, packed=True)
    with pytest.raises(DataError, match=f"train-labels.*expected the labels {message}; put the files of"):
        load(tmp_path / "files")
    other = load_mnist if load is load_fashion_mnist else load_fashion_mnist
    assert other(tmp_path / "files").train_labels[:16].tolist() == arrays[1][:16].tolist()


def test_the_real_sets_are_told_apart() -> None:
    root = os.environ.get("EXPUNGE_DATA")
    if not root or not all((Path(root) / name).is_dir() for name in ("mnist", "fashion_mnist")):
        pytest.skip("needs the environment variable EXPUNGE_DATA and both sets in that folder")
    for load, folder in ((load_mnist, "fashion_mnist"), (load_fashion_mnist, "mnist")):
        with pytest.raises(DataError, match=f"found those of {folder}"):
            load(Path(root) / folder)


def test_missing_files_are_named_with_both_folders_and_the_remedy(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", small_set(), packed=True)
    (tmp_path / "mnist" / f"{FILES[1]}.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    message = str(caught.value)
    assert f"missing {FILES[1]} (looked in {tmp_path / 'mnist'} and {tmp_path})" in message
    assert FILES[0] not in message
    assert "EXPUNGE_DATA" in message
    assert "--data-root" in message


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    assert data_folder(None, "set", ["file"]) == tmp_path
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file").touch()
    assert data_folder(None, "set", ["file"]) == tmp_path / "set"
    with pytest.raises(DataError, match="missing file "):
        data_folder(tmp_path / "elsewhere", "set", ["file"])


@pytest.mark.parametrize("value", [None, ""])
def test_no_folder_at_all_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    else:
        monkeypatch.setenv("EXPUNGE_DATA", value)
    with pytest.raises(
        DataError, match=r"a, b\), but no folder was given; set .* EXPUNGE_DATA .* --data-root"
    ):
        data_folder(None, "set", ["a", "b"])


def test_a_packed_file_counts_only_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file.gz").touch()
    assert data_folder(tmp_path, "set", ["file"], suffixes=("", ".gz")) == tmp_path
    with pytest.raises(DataError, match="missing file "):
        data_folder(tmp_path, "set", ["file"])


def _real(name: str) -> ImageData:
    root = os.environ.get("EXPUNGE_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"needs the environment variable EXPUNGE_DATA and {name} in that folder")
    return load_mnist() if name == "mnist" else load_fashion_mnist()


def test_the_real_mnist() -> None:
    data = _real("mnist")
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    expected = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.train_labels.bincount().tolist() == expected
    assert data.mean == pytest.approx([0.1307], abs=1e-4)
    assert data.std == pytest.approx([0.3081], abs=1e-4)


def test_the_real_fashion_mnist() -> None:
    data = _real("fashion_mnist")
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert data.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.train_labels.bincount().tolist() == [6000] * 10
    assert data.test_labels.bincount().tolist() == [1000] * 10
    assert data.mean == pytest.approx([0.2860], abs=1e-4)
    assert data.std == pytest.approx([0.3530], abs=1e-4)
