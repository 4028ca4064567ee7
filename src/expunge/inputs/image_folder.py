"""A folder of images with one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from expunge.errors import DataError, first_few, near_miss
from expunge.inputs.pictures import opener_of, read_pictures
from expunge.inputs.row_keys import printable, same_text
from expunge.inputs.training_data import DataOptions, TrainingData, given_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_PARTS = {"train", "training", "test", "val", "valid", "validation", "dev"}


def load_image_folder(folder: Path, options: DataOptions) -> TrainingData:
    """Read ``folder/CLASS/**/IMAGE``; the classes are the folders' names, sorted.

    Rows come in the order of torchvision's ``ImageFolder``: class by class, files sorted, so positions
    written down with it stay valid. Names are paths relative to ``folder``, with forward slashes.

    Raises:
        DataError: no class folders, a class without images, images outside the class folders, a damaged
            image, or sizes that differ.
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
