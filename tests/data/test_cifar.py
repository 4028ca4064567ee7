from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.data.cifar import decode, load_cifar10, read_inert
from expunge.data.images import Augmentation
from expunge.errors import DataError

NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def original_batch(images: np.ndarray, labels: Sequence[int], names: Sequence[bytes], title: bytes) -> bytes:
    """The bytes of an original batch: what Python 2's cPickle wrote for uint8 images (N, 3, 32, 32)."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def memo(number: int) -> bytes:
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def items(values: list[bytes]) -> bytes:
        # a list is appended to a thousand items at a time
        groups = [values[start : start + 1000] for start in range(0, len(values), 1000)]
        return b"".join(b"(" + b"".join(group) + b"e" for group in groups)

    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
    kind = (
        b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNN"
        + 2 * b"J\xff\xff\xff\xff"
        + b"K\x00tb"
    )
    shape = b"M" + struct.pack("<H", len(images)) + b"M\x00\x0c\x86"
    pixels = images.astype(np.uint8).tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            short(b"batch_label") + memo(2) + short(title) + memo(3),
            short(b"labels") + memo(4) + b"]" + memo(5) + items([bytes([0x4B, label]) for label in labels]),
            short(b"data") + memo(6) + array + b"(K\x01" + shape + kind,
            b"\x89T" + struct.pack("<I", len(pixels)) + pixels + b"tb",
            short(b"filenames") + memo(12) + b"]" + memo(13),
            items([short(name) + memo(14 + i) for i, name in enumerate(names)]),
            b"u.",
        ]
    )


def fake_images(seed: int, count: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def fake_batch(seed: int, count: int = 10) -> bytes:
    names = [b"image_%d.png" % i for i in range(count)]
    return original_batch(
        fake_images(seed, count), [(i + seed) % 10 for i in range(count)], names, b"a batch"
    )


def encode(images: np.ndarray) -> np.ndarray:
    """Compact form of uint8 (N, 3, H, W), pixel by pixel."""
    count, _, height, width = images.shape
    planes = np.zeros((3, count, height, width), dtype=int)
    wide = images.astype(int)
    planes[0], planes[1], planes[2] = wide[:, 0] - wide[:, 1], wide[:, 1], wide[:, 2] - wide[:, 1]
    coded = np.zeros_like(planes)
    for row in range(height):
        for column in range(width):
            up = planes[:, :, row - 1, column] if row else 0
            left = planes[:, :, row, column - 1] if column else 0
            corner = planes[:, :, row - 1, column - 1] if row and column else 0
            coded[:, :, row, column] = planes[:, :, row, column] - up - left + corner
    return (coded % 256).astype(np.uint8)


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        (folder / name).write_bytes(fake_batch(seed))
    return tmp_path


def write_compact(root: Path, first_seed: int = 0) -> None:
    folder = root / "cifar10"
    folder.mkdir()
    for seed, name in enumerate(NAMES, start=first_seed):
        labels = np.array([(i + seed) % 10 for i in range(10)], dtype=np.uint8)
        np.savez(folder / f"{name}.npz", delta=encode(fake_images(seed)), labels=labels)


def test_the_fixture_is_what_pickle_reads() -> None:
    loaded = pickle.loads(fake_batch(3, 1200), encoding="bytes")
    np.testing.assert_array_equal(loaded[b"data"].reshape(-1, 3, 32, 32), fake_images(3, 1200))
    assert loaded[b"labels"] == [(i + 3) % 10 for i in range(1200)]


def test_an_original_batch_is_read_as_pickle_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(fake_batch(3, 1200))
    expected = pickle.loads(path.read_bytes(), encoding="bytes")
    read = read_inert(path)
    assert read.keys() == expected.keys()
    np.testing.assert_array_equal(read.pop(b"data"), expected.pop(b"data"))
    assert read == expected


def test_original_batches_make_a_data_set(originals: Path) -> None:
    data = load_cifar10(originals)
    assert data.name == "cifar10"
    assert data.train_images.shape == (50, 3, 32, 32)
    np.testing.assert_array_equal(data.train_images[20:30].numpy(), fake_images(2))
    np.testing.assert_array_equal(data.test_images.numpy(), fake_images(5))
    assert data.train_labels.dtype == torch.int64
    assert data.train_labels[10:20].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.test_labels.tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.std == (0.2470, 0.2435, 0.2616)
    assert data.augmentation == Augmentation(pad=4, flip=True)


def test_the_compact_form_gives_the_same_data_set(
    originals: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("compact")
    write_compact(root)
    assert load_cifar10(root).content == load_cifar10(originals).content
    assert load_cifar10(root / "cifar10").content == load_cifar10(originals).content


def test_original_batches_go_before_the_compact_form(originals: Path) -> None:
    write_compact(originals, first_seed=50)
    np.testing.assert_array_equal(load_cifar10(originals).train_images[:10].numpy(), fake_images(0))
    (originals / "cifar-10-batches-py" / "data_batch_4").unlink()
    np.testing.assert_array_equal(load_cifar10(originals).train_images[:10].numpy(), fake_images(50))


def test_decoding_undoes_the_coding_pixel_by_pixel() -> None:
    images = fake_images(7, 3)
    np.testing.assert_array_equal(decode(encode(images)), images)


def test_missing_files_are_named_for_both_forms(originals: Path) -> None:
    (originals / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(
        DataError, match=r"missing data_batch_4 \(.*in the compact form.*test_batch\.npz.*EXPUNGE_DATA"
    ):
        load_cifar10(originals)


def test_a_malicious_pickle_is_refused_and_not_executed(originals: Path) -> None:
    mark = originals / "executed"
    command = f"touch {mark}".encode()
    attack = b"\x80\x02cos\nsystem\nU" + bytes([len(command)]) + command + b"\x85R."
    path = originals / "cifar-10-batches-py" / "data_batch_2"

    path.write_bytes(attack.replace(b"cos\n", b"cposix\n"))
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the attack works on a reader that executes
    mark.unlink()

    with pytest.raises(DataError, match=r"data_batch_2: .*asks for posix\.system; nothing .* executed"):
        load_cifar10(originals)
    path.write_bytes(attack)
    with pytest.raises(DataError, match=r"os\.system"):
        load_cifar10(originals)
    assert not mark.exists()


MALFORMED = {
    "asks for os.system": b"\x80\x02(ios\nsystem\n.",  # INST
    "asks for posix.system": b"\x80\x04X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93.",  # STACK_GLOBAL
    "asks for builtins.eval": b"\x80\x02cbuiltins\neval\n.",
    "NEWOBJ class argument": b"\x80\x02cnumpy\nndarray\nK\x00\x85\x81.",
    "persistent": b"\x80\x02K\x01Q.",
    "__setstate__": b"\x80\x02cnumpy\ndtype\nNb.",
    "not callable": b"\x80\x02K\x01K\x02\x85R.",
    "has no attribute": b"\x80\x02}(K\x01e.",
    "does not hold one dictionary": b"\x80\x02K\x01.",
    "holds numbers of the type": b"\x80\x02cnumpy\ndtype\nU\x02f8K\x00K\x01\x87RNb.",
    "holds numbers of the form": b"\x80\x02cnumpy\ndtype\nU\x02u1K\x00K\x01\x87RNb.",
    "makes an array of": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nK\x01\x85R.",
    "Ran out of input": b"\x80\x02}",
    "invalid load key": b"<html>",
}


@pytest.mark.parametrize("reason", MALFORMED)
def test_anything_but_plain_data_is_refused(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(MALFORMED[reason])
    with pytest.raises(DataError, match=f"(?s)bad: expected a batch .*{reason}.*get the original file again"):
        read_inert(path)


def test_an_array_that_differs_from_its_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(fake_batch(0).replace(b"M\x0a\x00M\x00\x0c", b"M\x0b\x00M\x00\x0c"))
    with pytest.raises(DataError, match=r"an array of shape \(11, 3072\) comes with 30720 bytes"):
        read_inert(path)


def test_a_truncated_or_damaged_batch_is_a_data_error_or_other_data(tmp_path: Path) -> None:
    whole = fake_batch(0)
    path = tmp_path / "batch"
    for end in (0, 1, 100, 400, 5000, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="nothing in the file was executed"):
            read_inert(path)
    draw = np.random.default_rng(0)
    outside_pixels = [*range(330), *range(len(whole) - 200, len(whole))]
    refused = 0
    for position in outside_pixels:
        damaged = bytearray(whole)
        damaged[position] = draw.integers(256)
        path.write_bytes(damaged)
        try:
            read_inert(path)
        except DataError:
            refused += 1
    assert refused > 100


def test_an_unreadable_batch_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: expected a readable batch, but No such file"):
        read_inert(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}.", r"'data' to be an array of shape \(N, 3072\), found NoneType"),
        (fake_batch(0).replace(b"M\x0a\x00M\x00\x0c", b"M\x14\x00M\x00\x06"), r"found \(20, 1536\)"),
        (fake_batch(0).replace(b"U\x06labels", b"U\x06LABELS"), "'labels' to be a list of ints"),
        (fake_batch(0).replace(b"]q\x05(K\x00", b"]q\x05(N"), "'labels' to be a list of ints"),
        (fake_batch(0).replace(b"]q\x05(K\x00", b"]q\x05("), "found 10 images and 9 labels"),
    ],
)
def test_an_original_batch_of_another_content_is_refused(
    originals: Path, content: bytes, message: str
) -> None:
    path = originals / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_1: expected .*{message}.*get the file again"):
        load_cifar10(originals)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"delta": np.zeros((3, 4, 32, 31), np.uint8)}, r"'delta' .*found uint8 \(3, 4, 32, 31\)"),
        ({"delta": np.zeros((3, 4, 32, 32))}, "'delta' .*found float64"),
        ({"labels": np.zeros(4)}, "'labels' .*found float64"),
        ({"labels": np.zeros((4, 1), int)}, r"'labels' .*found int64 \(4, 1\)"),
        ({"labels": np.zeros(5, int)}, "found 4 images and 5 labels"),
    ],
)
def test_a_compact_batch_of_another_content_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    write_compact(tmp_path)
    good = {"delta": np.zeros((3, 4, 32, 32), np.uint8), "labels": np.zeros(4, int)}
    np.savez(tmp_path / "cifar10" / "data_batch_1.npz", **(good | arrays))
    with pytest.raises(DataError, match=rf"data_batch_1\.npz: expected .*{message}.*get the file again"):
        load_cifar10(tmp_path)


def _real_folder() -> Path:
    root = os.environ.get("EXPUNGE_DATA")
    if not root or not (Path(root) / "cifar10").is_dir():
        pytest.skip("needs the environment variable EXPUNGE_DATA and cifar10 in that folder")
    return Path(root)


def test_the_real_cifar10() -> None:
    data = load_cifar10(_real_folder())
    assert data.train_images.shape == (50000, 3, 32, 32)
    assert data.test_images.shape == (10000, 3, 32, 32)
    assert data.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert data.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert data.train_labels.bincount().tolist() == [5000] * 10
    assert data.test_labels.bincount().tolist() == [1000] * 10
    pixels = data.train_images[::10].double() / 255
    assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx(data.mean, abs=5e-3)
    assert pixels.std(dim=(0, 2, 3)).tolist() == pytest.approx(data.std, abs=5e-3)


def test_a_real_original_batch_reads_as_its_compact_form(tmp_path: Path) -> None:
    with np.load(_real_folder() / "cifar10" / "test_batch.npz") as compact:
        images, labels, names = decode(compact["delta"]), compact["labels"], compact["filenames"].tolist()
    content = original_batch(images, labels.tolist(), names, b"testing batch 1 of 1")
    assert hashlib.md5(content).hexdigest() == "40351d587109b95175f43aff81a1287e"
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    read = read_inert(path)
    np.testing.assert_array_equal(read[b"data"], images.reshape(10000, 3072))
    assert read[b"labels"] == labels.tolist()
    assert read[b"filenames"] == names
    assert read[b"batch_label"] == b"testing batch 1 of 1"
