"""Image files decoded to uint8, checked one by one, kept in memory or read when they are needed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.data.examples import Source
from expunge.data.images import Augmentation, ImageSource
from expunge.errors import DataError, InvalidInput
from expunge.inputs.training_data import IMAGENET, DataOptions, Inputs
from expunge.optional import load_extra

Opener = Callable[[], Any]
"""Returns what Pillow can open (a path or a binary file), or an image of Pillow's."""


@dataclass(frozen=True)
class DecodedSource:
    """Images that are decoded each time they are read, as normalised float32.

    Args:
        decode: row -> uint8 (C, H, W).
        count: number of rows.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        augmentation: what an augmented batch goes through.
        device: torch device of the batches.
    """

    decode: Callable[[int], Tensor]
    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    device: torch.device

    def __len__(self) -> int:
        return self.count

    @property
    def augments(self) -> bool:
        """Whether augmentation changes anything."""
        return self.augmentation != Augmentation()

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return float32 (B, C, H, W), augmented if ``generator`` is given."""
        images = torch.stack([self.decode(row) for row in rows.tolist()]).to(self.device)
        source = ImageSource(images, self.mean, self.std, self.augmentation)
        return source.fetch(torch.arange(len(images), device=self.device), generator)


def read_pictures(openers: Sequence[Opener], names: Sequence[str], options: DataOptions) -> Inputs:
    """Decode every image once, check them all, and return them as a source.

    Grey images stay grey where all are; palettes and transparency become colour. All images are kept in
    memory as uint8 up to ``options.memory`` bytes, else each is decoded when it is read.

    Args:
        openers: one per image.
        names: what each is called in messages.
        options: size, channels, normalisation, memory.

    Raises:
        DataError: an image that cannot be read, 16-bit images, or unequal sizes without ``size``.
        InvalidInput: Pillow is not installed.
    """
    library = load_extra("PIL.Image", "pillow", "data", "reading images")
    channels, shapes = _look(library, openers, names, options)
    height, width = (options.size, options.size) if options.size else next(iter(shapes))

    def decode(row: int) -> Tensor:
        return _decode(library, openers[row], names[row], channels, options)

    count = len(openers)
    kept = count * channels * height * width <= options.memory
    images = torch.empty(count if kept else 0, channels, height, width, dtype=torch.uint8)
    total, squares = np.zeros(channels), np.zeros(channels)
    for row in range(count):
        image = decode(row)
        if kept:
            images[row] = image
        pixels = image.flatten(1).numpy().astype(np.float64) / 255
        total += pixels.mean(1) / count
        squares += (pixels**2).mean(1) / count
    deviation = np.sqrt(np.maximum(squares - total**2, 0))
    # A constant channel normalises to zero.
    statistics = tuple(total.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())
    mean, std = normalisation(options, channels, statistics)
    notes = [f"{count} images, {channels} x {height} x {width}, normalised {_said(options, mean, std)}"]
    if options.size and len(shapes) > 1:
        notes.append(f"{len(shapes)} sizes of image were resized to {options.size} x {options.size}")
    device = torch.device(options.device)
    source: Source
    if kept:
        source = ImageSource(images.to(device), mean, std, options.augmentation)
    else:
        notes.append(f"the images take more than {options.memory / 2**30:.1f} GiB: each is decoded when read")
        source = DecodedSource(decode, count, mean, std, options.augmentation, device)
    return Inputs(source, tuple(notes), mean=mean, std=std)


def normalisation(
    options: DataOptions, channels: int, statistics: tuple[tuple[float, ...], tuple[float, ...]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel as ``options`` ask for; ``statistics`` are those of the data.

    Raises:
        InvalidInput: three numbers for grey images.
    """
    if options.mean is not None and options.std is not None:
        mean, std = options.mean, options.std
    elif options.normalise in ("auto", "data"):
        mean, std = statistics
    elif options.normalise == "imagenet":
        mean, std = IMAGENET
    elif options.normalise == "half":
        mean, std = (0.5,), (0.5,)
    else:
        mean, std = (0.0,), (1.0,)
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if len(mean) != channels:
        raise InvalidInput(
            f"{len(mean)} numbers normalise images of {channels} channel; give one number, or --channels 3 to "
            "read grey images as colour"
        )
    return mean, std


def _said(options: DataOptions, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    given = (
        "as given" if options.mean is not None else f"by {'data' if options.open else options.normalise!r}"
    )
    return f"{given}: mean {_numbers(mean)}, std {_numbers(std)}"


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4f}" for value in values)


def _look(
    library: Any, openers: Sequence[Opener], names: Sequence[str], options: DataOptions
) -> tuple[int, Counter[tuple[int, int]]]:
    """Read the headers: number of channels, and how many images have each (height, width)."""
    shapes: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], str] = {}
    grey = True
    for opener, name in zip(openers, names, strict=True):
        with _opened(library, opener, name) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{name}: has pixels of mode {image.mode!r} (more than 8 bits), expected 8 bits a channel; "
                    "convert the images first"
                )
            grey = grey and image.mode in ("L", "1", "LA")
            shape = (image.height, image.width)
        shapes[shape] += 1
        first.setdefault(shape, name)
    if len(shapes) > 1 and options.size is None:
        (usual, often), *_ = shapes.most_common()
        other = next(shape for shape in shapes if shape != usual)
        raise DataError(
            f"images must have one size, but {often} are {usual[1]}x{usual[0]} pixels and {len(openers) - often} "
            f"are not (the first is {first[other]}, {other[1]}x{other[0]}); --size N resizes all to N x N"
        )
    return options.channels or (1 if grey else 3), shapes


def _opened(library: Any, opener: Opener, name: str) -> Any:
    try:
        found = opener()
        return found if isinstance(found, library.Image) else library.open(found)
    # Decoders of damaged files fail in many ways.
    except Exception as error:
        raise DataError(_broken(name, error)) from error


def _broken(name: str, error: Exception) -> str:
    said = str(error).partition("<")[0] or type(error).__name__
    return f"{name}: cannot be read as an image ({said.strip()}); repair it, or take it out of the data"


def _decode(library: Any, opener: Opener, name: str, channels: int, options: DataOptions) -> Tensor:
    with _opened(library, opener, name) as image:
        try:
            picture = image.convert("L" if channels == 1 else "RGB")
        except Exception as error:
            raise DataError(_broken(name, error)) from error
        if options.size is not None:
            picture = _resized(library, picture, options.size, options.crop)
    array = np.array(picture, dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _resized(library: Any, picture: Any, size: int, crop: bool) -> Any:
    width, height = picture.size
    if not crop:
        return (
            picture
            if (width, height) == (size, size)
            else picture.resize((size, size), library.Resampling.BILINEAR)
        )
    scale = size / min(width, height)
    wide, high = max(size, int(width * scale)), max(size, int(height * scale))
    if (wide, high) != (width, height):
        picture = picture.resize((wide, high), library.Resampling.BILINEAR)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def opener_of(value: Any) -> Opener:
    """Return an opener of a path, of encoded bytes, or of an image that is decoded already."""
    if isinstance(value, bytes):
        return lambda: io.BytesIO(value)
    if isinstance(value, str | Path):
        return lambda: Path(value)
    # A copy, because what opens an image also closes it.
    return lambda: value.copy()
