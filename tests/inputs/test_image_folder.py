from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.data.images import ImageSource
from expunge.errors import DataError
from expunge.inputs import pictures
from expunge.inputs.pictures import DecodedSource, load_image_folder
from expunge.inputs.training_data import DataOptions


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def test_classes_names_and_pixels(folder: Path) -> None:
    data = load_image_folder(folder, DataOptions())
    assert data.classes == ("ant", "bee", "cat")
    assert data.names == tuple(f"{c}/{c[0]}{i}.png" for c in data.classes for i in range(4))
    assert data.examples.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.shape == (3, 8, 8)
    assert isinstance(data.examples.source, ImageSource)
    expected = torch.stack([pixels(folder / name) for name in data.names])
    assert torch.equal(data.examples.source.images, expected)
    # by default the images' own statistics
    scaled = expected.double() / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 2, 3)))
    np.testing.assert_allclose(data.std, scaled.std((0, 2, 3), unbiased=False))
    assert "normalised by 'data'" in data.notes[0]


def test_images_that_are_not_kept_are_decoded_when_read(folder: Path) -> None:
    whole, lazy = (load_image_folder(folder, DataOptions(cache=cache)) for cache in ("auto", "none"))
    assert isinstance(lazy.examples.source, DecodedSource)
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(lazy.examples.source.fetch(rows, None), whole.examples.source.fetch(rows, None))
    assert (lazy.mean, lazy.std) == (whole.mean, whole.std)
    flipped = load_image_folder(folder, DataOptions(cache="none", flip=True, pad=1)).examples.source
    kept = load_image_folder(folder, DataOptions(flip=True, pad=1)).examples.source
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(flipped.fetch(rows, draws[0]), kept.fetch(rows, draws[1]))


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
def test_each_file_is_decoded_once(folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = pictures.Decoder._decode

    def counted(decoder: Any, library: Any, opener: Any, name: str) -> torch.Tensor:
        decoded.append(name)
        return decode(decoder, library, opener, name)

    monkeypatch.setattr(pictures.Decoder, "_decode", counted)
    data = load_image_folder(folder, DataOptions(cache=cache))
    for _ in range(3):
        assert len(torch.cat([batch.x for batch in data.examples.batches(5)])) == 12
    assert sorted(decoded) == sorted(str(folder / name) for name in data.names)
    assert isinstance(data.examples.source, ImageSource)
    assert data.examples.source.images.dtype == torch.uint8


@pytest.mark.parametrize("cache", ["none", "memory", "disk", "folder"])
@pytest.mark.parametrize("workers", [1, 2])
def test_images_are_the_same_whoever_reads_them_and_wherever_they_stay(
    folder: Path, tmp_path: Path, cache: str, workers: int
) -> None:
    def batches(**options: Any) -> torch.Tensor:
        data = load_image_folder(folder, DataOptions(flip=True, pad=1, **options))
        draw = torch.Generator().manual_seed(0)
        return torch.cat([batch.x for batch in data.examples.batches(10, draw, augment=True)])

    place = str(tmp_path) if cache == "folder" else cache
    assert torch.equal(batches(cache=place, workers=workers), batches())
    left = {entry.name for entry in tmp_path.iterdir()}
    assert not any(name.startswith("expunge-rows") for name in left)


def test_images_beyond_the_budget_are_kept_on_disk_and_told(folder: Path) -> None:
    said = load_image_folder(folder, DataOptions(memory=100)).notes
    assert any("are kept in a temporary file in" in note for note in said)
    assert not any("file" in note for note in load_image_folder(folder, DataOptions(memory=10**6)).notes)


def test_a_damaged_image_is_named_by_a_worker(folder: Path) -> None:
    (folder / "cat" / "c1.png").write_bytes((folder / "cat" / "c1.png").read_bytes()[:50])
    with pytest.raises(DataError, match=r"cat/c1\.png: cannot be read as an image"):
        load_image_folder(folder, DataOptions(workers=2))


def test_the_order_is_that_of_image_folder(folder: Path) -> None:
    (folder / "bee" / "a").mkdir()
    (folder / "bee" / "b0.png").rename(folder / "bee" / "a" / "z.PNG")
    (folder / "bee" / "notes.txt").write_text("not an image")
    (folder / ".cache").mkdir()
    data = load_image_folder(folder, DataOptions())
    assert data.names[4:8] == ("bee/b1.png", "bee/b2.png", "bee/b3.png", "bee/a/z.PNG")
    assert data.notes[-1] == "1 files that are no images were left out"


def test_classes_in_another_order(folder: Path) -> None:
    data = load_image_folder(folder, DataOptions(classes=("cat", "dog", "bee", "ant")))
    assert data.examples.labels.tolist() == [3] * 4 + [2] * 4 + [0] * 4
    assert data.examples.n_classes == 4
    with pytest.raises(DataError, match="folder 'cat' is none of the classes that were named; did you mean"):
        load_image_folder(folder, DataOptions(classes=("ant", "bee", "cot")))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGBA", 3), ("P", 3), ("CMYK", 3)])
def test_grey_and_colour(tmp_path: Path, mode: str, channels: int) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (4, 4), 1).save(tmp_path / name / f"1.{suffix}")
    assert load_image_folder(tmp_path, DataOptions()).shape == (channels, 4, 4)
    assert load_image_folder(tmp_path, DataOptions(channels=3)).shape == (3, 4, 4)
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "2.png")
    assert load_image_folder(tmp_path, DataOptions()).shape == (3, 4, 4)


def test_unequal_sizes(folder: Path) -> None:
    Image.new("RGB", (10, 6)).save(folder / "bee" / "b9.jpg")
    with pytest.raises(
        DataError, match=r"12 are 8x8 pixels and 1 are not \(the first is .*b9\.jpg, 10x6\); --size N resizes"
    ):
        load_image_folder(folder, DataOptions())
    data = load_image_folder(folder, DataOptions(size=4))
    assert data.shape == (3, 4, 4)
    assert "2 sizes of image were resized to 4 x 4" in data.notes
    # a centre crop of the shorter side keeps the aspect
    wide = Image.new("RGB", (16, 8))
    wide.paste((255, 255, 255), (4, 0, 12, 8))
    wide.save(folder / "bee" / "b9.jpg", quality=100)
    source = load_image_folder(folder, DataOptions(size=8, crop=True)).examples.source
    assert isinstance(source, ImageSource)
    assert int(source.images[8].min()) > 240


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_image_is_named(folder: Path, content: bytes | None) -> None:
    path = folder / "cat" / "c1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"cat/c1\.png: cannot be read as an image .*; repair it"):
        load_image_folder(folder, DataOptions())


def test_sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(folder / "cat" / "c9.png")
    with pytest.raises(DataError, match=r"c9\.png: has pixels of mode 'I;16'.*convert the images"):
        load_image_folder(folder, DataOptions())


def test_folders_that_are_no_classes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no folders; expected one folder of images per class"):
        load_image_folder(tmp_path / "none", DataOptions())
    with pytest.raises(DataError, match="holds 4 images; expected one folder"):
        load_image_folder(folder / "ant", DataOptions())
    (folder / "dog").mkdir()
    with pytest.raises(DataError, match=r"dog holds no image .*remove the folder"):
        load_image_folder(folder, DataOptions())
    (folder / "dog").rmdir()
    (folder / "ant" / "a0.png").rename(folder / "a0.png")
    with pytest.raises(DataError, match=r"1 images lie outside the class folders \(the first is a0\.png\)"):
        load_image_folder(folder, DataOptions())
    for part in ("train", "val"):
        (tmp_path / "parts" / part).mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"holds the parts train, val, expected class folders; give .*parts/train"
    ):
        load_image_folder(tmp_path / "parts", DataOptions())
