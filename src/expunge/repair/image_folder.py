"""A folder of images with one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from expunge.data.examples import Examples
from expunge.errors import DataError, near_miss
from expunge.repair.findings import first_few
from expunge.repair.pictures import opener_of, read_pictures
from expunge.repair.training_data import DataOptions, TrainingData

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
    found = [entry.name for entry in inside if entry.is_dir()]
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
            f"{folder} holds the parts {', '.join(found)}, expected class folders; give {folder / found[0]}"
        )
    classes = options.classes or tuple(found)
    for name in found:
        if name not in classes:
            raise DataError(
                f"{folder}: folder {name!r} is none of the classes that were named{near_miss(name, classes)}; "
                "name every folder"
            )
    paths: list[Path] = []
    labels: list[int] = []
    other = 0
    for name in found:
        images, ignored = _images_in(folder / name)
        if not images:
            raise DataError(
                f"{folder / name} holds no image ({first_few(list(SUFFIXES), 9)}); remove the folder, or add the "
                "images the model was trained on"
            )
        paths += images
        labels += [classes.index(name)] * len(images)
        other += ignored
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    pictures = read_pictures([opener_of(path) for path in paths], [str(path) for path in paths], options)
    notes = pictures.notes
    if other:
        notes += (f"{other} files that are no images were left out",)
    return TrainingData(
        Examples.all_of(pictures.source, torch.tensor(labels), len(classes)),
        classes,
        names,
        mean=pictures.mean,
        std=pictures.std,
        notes=notes,
    )


def _images_in(folder: Path) -> tuple[list[Path], int]:
    """Images in torchvision's order, and the number of other files."""
    found: list[Path] = []
    other = 0
    for root, _, files in sorted(os.walk(folder, followlinks=True)):
        for file in sorted(files):
            if file.lower().endswith(SUFFIXES):
                found.append(Path(root, file))
            elif not file.startswith("."):
                other += 1
    return found, other
