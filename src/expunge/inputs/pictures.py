"""Image files, one by one or in a folder per class: decoded to uint8, and kept or read when they are needed."""

from __future__ import annotations

import functools
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from expunge.data.examples import Source
from expunge.data.images import Augmentation, ImageSource, Normalised, PixelSums, Statistics
from expunge.data.reader import Plan, Reader, in_order
from expunge.errors import DataError, InvalidInput, first_few, near_miss
from expunge.inputs.row_keys import printable, same_text
from expunge.inputs.training_data import IMAGENET, DataOptions, TrainingData, given_names
from expunge.optional import load_extra
from expunge.seeding import sent

Opener = Callable[[], Any]
"""Returns what Pillow can open (a path or a binary file), or an image of Pillow's."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_PARTS = {"train", "training", "test", "val", "valid", "validation", "dev"}

_ON_DEVICE = 4 * 2**30
"""Bytes of images up to which all of them are put on an accelerator."""


@dataclass(frozen=True)
class Decoder:
    """Decodes images by their rows; it can be handed to another process. ``names`` are for messages."""

    openers: Sequence[Opener]
    names: Sequence[str]
    channels: int
    options: DataOptions

    def __call__(self, plan: Plan) -> Tensor:
        """Return uint8 (B, C, H, W)."""
        library = load_extra("PIL.Image", "pillow", "data", "reading images")
        return torch.stack([self._decode(library, self.openers[row], self.names[row]) for row in plan.rows])

    def _decode(self, library: Any, opener: Opener, name: str) -> Tensor:
        with _opened(library, opener, name) as image:
            try:
                picture = image.convert("L" if self.channels == 1 else "RGB")
            except Exception as error:
                raise DataError(_broken(name, error)) from error
            if self.options.size is not None:
                picture = _resized(library, picture, self.options.size, self.options.crop)
        array = np.array(picture, dtype=np.uint8)
        return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class DecodedSource(Normalised):
    """Images that are decoded each time they are read, as normalised float32; the rest as in :class:`ImageSource`."""

    decoder: Decoder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    device: torch.device
    reader: Reader
    host_rows: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.decoder.openers)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return float32 (B, C, H, W), augmented if ``generator`` is given."""
        return next(self.stream([rows], generator))

    def stream(self, parts: Sequence[Tensor], generator: torch.Generator | None) -> Iterator[Tensor]:
        """Yield what :meth:`fetch` returns for each of ``parts``; workers decode ahead."""
        plans = (Plan(rows.tolist()) for rows in parts)
        for images in self.reader.ahead(self.decoder, plans, self.device):
            yield self.finished(sent(images, self.device), generator)


def read_pictures(
    openers: Sequence[Opener], names: Sequence[str], options: DataOptions
) -> tuple[Source, tuple[str, ...]]:
    """Decode every image once, check them all, and return them as a source, with notes for the user.

    Grey images stay grey where all are; palettes and transparency become colour. All images are kept as uint8, in
    memory or on disk as ``options`` say; where neither has room, each is decoded whenever it is read.
    """
    library = load_extra("PIL.Image", "pillow", "data", "reading images")
    channels, shapes = _look(library, openers, names, options)
    height, width = (options.size, options.size) if options.size else next(iter(shapes))
    decoder, count = Decoder(openers, names, channels, options), len(openers)
    kept, where = options.reader.room((count, channels, height, width), torch.uint8)
    sums, done = PixelSums(channels), 0
    for images in options.reader.ahead(decoder, in_order(count)):
        sums.add(images)
        if kept is not None:
            kept[done : done + len(images)] = images
        done += len(images)
    mean, std = normalisation(options, channels, sums.statistics())
    notes = [f"{count} images, {channels} x {height} x {width}, normalised {_said(options, mean, std)}"]
    if options.size and len(shapes) > 1:
        notes.append(f"{len(shapes)} sizes of image were resized to {options.size} x {options.size}")
    notes += [where] if where else []
    device = torch.device(options.device)
    if kept is None:
        decoded = DecodedSource(decoder, mean, std, options.augmentation, device, options.reader)
        return decoded, tuple(notes)
    # What was too large for memory stays in its file; what is large beside an accelerator's memory stays here.
    moves = not where and kept.nbytes <= _ON_DEVICE
    images = kept.to(device) if moves else kept
    source = ImageSource(images, mean, std, options.augmentation, place=None if moves else device)
    return source, tuple(notes)


def normalisation(options: DataOptions, channels: int, statistics: Statistics) -> Statistics:
    """Return mean and std per channel as ``options`` ask for; ``statistics`` are those of the data."""
    usual: dict[str, Statistics] = {"imagenet": IMAGENET, "half": ((0.5,), (0.5,)), "none": ((0.0,), (1.0,))}
    mean, std = usual.get(options.normalise, statistics)
    if options.mean is not None and options.std is not None:
        mean, std = options.mean, options.std
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if len(mean) != channels:
        raise InvalidInput(
            f"{len(mean)} numbers normalise images of {channels} channel; give one number, or --channels 3 to "
            "read grey images as colour"
        )
    return mean, std


def _said(options: DataOptions, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    by = repr("data" if options.open else options.normalise)
    means, stds = (",".join(f"{value:.4f}" for value in values) for values in (mean, std))
    return f"{'as given' if options.mean is not None else f'by {by}'}: mean {means}, std {stds}"


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


def _resized(library: Any, picture: Any, size: int, crop: bool) -> Any:
    width, height = picture.size
    wide, high = size, size
    if crop:
        scale = size / min(width, height)
        wide, high = max(size, int(width * scale)), max(size, int(height * scale))
    if (wide, high) != (width, height):
        picture = picture.resize((wide, high), library.Resampling.BILINEAR)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def opener_of(value: Any) -> Opener:
    """Return an opener of a path, of encoded bytes, or of an image that is decoded already."""
    if isinstance(value, bytes):
        return functools.partial(io.BytesIO, value)
    if isinstance(value, str | Path):
        return functools.partial(Path, value)
    # A copy, because what opens an image also closes it.
    opener: Opener = value.copy
    return opener


def load_image_folder(folder: Path, options: DataOptions) -> TrainingData:
    """Read ``folder/CLASS/**/IMAGE``; the classes are the folders' names, sorted.

    Rows come in the order of torchvision's ``ImageFolder``: class by class, files sorted, so positions
    written down with it stay valid. Names are paths relative to ``folder``, with forward slashes.
    """
    inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    found = {printable(entry.name): entry for entry in inside if entry.is_dir()}
    loose = [entry.name for entry in inside if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if not found:
        what = f"{len(loose)} images" if loose else "no folders"
        raise DataError(f"{folder} holds {what}; expected one folder of images per class")
    if loose:
        raise DataError(
            f"{folder}: {len(loose)} images lie outside the class folders (the first is {loose[0]}); move each "
            "into the folder of its class"
        )
    if {name.lower() for name in found} <= _PARTS:
        raise DataError(
            f"{folder} holds the parts {', '.join(found)}, expected class folders; give {folder / next(iter(found))}"
        )
    classes = given_names(options.classes, found, "classes") or tuple(found)
    number = {same_text(name): label for label, name in enumerate(classes)}
    for name in found:
        if same_text(name) not in number:
            raise DataError(
                f"{folder}: folder {name!r} is none of the classes that were named{near_miss(name, classes)}; "
                "name every folder"
            )
    paths: list[Path] = []
    labels: list[int] = []
    other = 0
    for name, inner in found.items():
        images, ignored = _images_in(inner)
        if not images:
            raise DataError(
                f"{inner} holds no image ({first_few(list(SUFFIXES), 9)}); remove the folder, or add the "
                "images the model was trained on"
            )
        paths += images
        labels += [number[same_text(name)]] * len(images)
        other += ignored
    names = tuple(printable(path.relative_to(folder).as_posix()) for path in paths)
    source, notes = read_pictures([opener_of(path) for path in paths], [str(path) for path in paths], options)
    if other:
        notes += (f"{other} files that are no images were left out",)
    return TrainingData.of(source, torch.tensor(labels), classes, names=names, notes=notes)


def _images_in(folder: Path) -> tuple[list[Path], int]:
    """Images in torchvision's order, and the number of other files; each folder is read once, links followed."""
    found: list[Path] = []
    other, seen = 0, set()
    for root, inner, files in os.walk(folder, followlinks=True):
        here = Path(root).resolve()
        if here in seen:
            inner.clear()  # a link to a folder that was read, such as one above it
            continue
        seen.add(here)
        for file in files:
            path = Path(root, file)
            if file.lower().endswith(SUFFIXES) and path.is_file():
                found.append(path)
            elif not file.startswith("."):
                other += 1
    return sorted(found, key=lambda path: (str(path.parent), path.name)), other
