"""Training and validation data by what the user writes: a folder, a file, a name or a factory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.examples import Examples, Source
from expunge.data.images import ImageData, ImageSource
from expunge.data.joined import TensorSource
from expunge.data.loading import load_data
from expunge.data.location import check_regular
from expunge.data.mapped import MappedSource, as_pairs, check_input
from expunge.errors import DataError, near_miss
from expunge.inputs.arrays import Part, load_arrays, pad_tokens
from expunge.inputs.pictures import load_image_folder, normalisation
from expunge.inputs.row_keys import printable
from expunge.inputs.specification import Specification, call_factory
from expunge.inputs.table_data import FORMATS, load_table, open_table
from expunge.inputs.training_data import DataOptions, TrainingData, number_labels
from expunge.registry import DATASETS

FORMS = (
    "a folder with one folder of images per class, a .npz, .parquet, .csv or .json file, a folder written by "
    "save_to_disk, datasets:NAME, the name of a data set, or path/to/file.py:FACTORY"
)


def load_training_data(text: str, options: DataOptions | None = None, part: Part = "train") -> TrainingData:
    """Return the training data that ``text`` names, in its own order.

    - a folder with one folder of images per class;
    - a ``.npz`` file with ``images`` or ``inputs``, and ``labels``;
    - a ``.parquet``, ``.csv``, ``.tsv``, ``.json`` or ``.jsonl`` file, a folder written by ``save_to_disk``,
      or ``datasets:NAME?name=CONFIG``: whatever the ``datasets`` library loads;
    - a named data set ("expunge list data");
    - ``file.py:factory?setting=value``: a map-style dataset, or one of the ``datasets`` library.

    Args:
        text: the specification.
        options: how it is read.
        part: "validation" takes the part of the source that is not for training, where it has one.

    Raises:
        DataError: nothing of that name, or data that cannot be used; the message names the file or row.
        InvalidInput: a package that is not installed, or a setting that does not fit.
    """
    options = options or DataOptions()
    found, used = _load(text, options, part)
    # Validation data is read as the training data was, whatever it is.
    if part == "train":
        options.check_used(text, used)
    return found


_PIXELS = ("normalise", "mean", "std", "pad", "flip")
_READER = ("workers", "cache")
_FILES = (*_PIXELS, *_READER, "size", "crop", "channels")


def _load(text: str, options: DataOptions, part: Part) -> tuple[TrainingData, tuple[str, ...]]:
    """The data, and the options that were looked at."""
    specification = Specification.parse(text)
    target, settings = specification.target, dict(specification.settings)
    path = Path(target).expanduser()
    check_regular(path)
    saved = path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    table: Any = None
    if target.startswith("datasets:"):
        table = open_table(target.removeprefix("datasets:"), settings, options, part)
    elif ":" in target and not path.exists():
        made = call_factory(target, settings, "a map-style dataset")
        if not (hasattr(made, "column_names") and hasattr(made, "features")):
            return load_dataset_object(made, options), ("inputs", "label", *_READER)
        table = made
    elif (path.suffix in FORMATS and path.is_file()) or (saved and not settings):
        table = open_table(target, settings, options, part)
    if table is not None:
        found = load_table(table, options, target.removeprefix("datasets:"))
        kind = _FILES if found.mean else ("tokenizer", "max_length") if found.sequences else ()
        return found, ("inputs", "label", "split", *kind)
    if settings:
        raise DataError(f"{text!r}: {target} takes no settings after a question mark; use the options")
    if path.suffix == ".npz":
        found = load_arrays(path, options, part)
        return found, _PIXELS if found.mean else ()
    if path.is_dir():
        return load_image_folder(path, options), _FILES
    if target in DATASETS.names():
        return _of_images(load_data(target, options.root), options, part), (*_PIXELS, "root")
    raise DataError(
        f"there is no data {target!r:.200}{near_miss(target, DATASETS.names())}; expected {FORMS}"
    )


def load_validation_data(text: str, options: DataOptions, training: TrainingData) -> Examples:
    """Return examples the model was not trained on, read as the training data was: its classes and normalisation.

    Raises:
        DataError: as in :func:`load_training_data`, inputs of another shape than in training, or the training data
            itself.
    """
    same = replace(options, classes=training.classes if training.named_classes else options.classes)
    if training.mean:
        same = replace(
            same, mean=training.mean, std=training.std, channels=same.channels or len(training.mean)
        )
    found = load_training_data(text, same, "validation")
    if found.shape != training.shape and not (found.sequences and training.sequences):
        size = f"; --size {training.shape[1]} resizes both" if len(training.shape) == 3 else ""
        raise DataError(
            f"{text}: inputs have shape {found.shape}, but those of the training data {training.shape}{size}"
        )
    if len(found.classes) > len(training.classes):
        raise DataError(
            f"{text}: {len(found.classes)} classes, but the training data has {len(training.classes)}; give "
            "validation data of the same classes"
        )
    first, second = found.examples, training.examples
    if len(first) == len(second) and torch.equal(first.labels, second.labels):
        few, others = next(first.batches(8)).x, next(second.batches(8)).x
        if torch.equal(few, others):
            raise DataError(
                f"{text} holds the training data itself; give data that the model was not trained on"
            )
    return replace(found.examples, n_classes=len(training.classes))


def _of_images(data: ImageData, options: DataOptions, part: Part) -> TrainingData:
    images, labels = data.train_images, data.train_labels
    if part == "validation":
        images, labels = data.test_images, data.test_labels
    mean, std = data.mean, data.std
    if options.mean is not None or options.normalise not in ("auto", "data"):
        mean, std = normalisation(options, images.shape[1], (mean, std))
    augmentation = options.augmentation if options.pad or options.flip else data.augmentation
    source = ImageSource(images.to(options.device), mean, std, augmentation)
    return TrainingData.of(source, *number_labels(labels.tolist(), options.classes, data.name, data.classes))


def load_dataset_object(dataset: Any, options: DataOptions) -> TrainingData:
    """Wrap a map-style dataset; its inputs go to the model as they are.

    Items are (input, label) pairs or dictionaries. An input is a float tensor, or token ids: 1-D integers,
    padded with 0 to one length. Names come from ``dataset.names``, ``dataset.filenames`` or torchvision's
    ``dataset.samples``, class names from ``dataset.classes``. Every item is read once, to check it; float
    inputs are kept as ``options`` say, but where the dataset draws random numbers.
    """
    pairs = as_pairs(dataset, options.inputs[0] if options.inputs else None, options.label)
    known = tuple(str(name) for name in getattr(dataset, "classes", None) or ())
    tokens: list[Tensor] = []
    shape: torch.Size | None = None

    def look(x: Tensor, row: int) -> None:
        nonlocal shape
        shape = x.shape if shape is None else shape
        ids = x.ndim == 1 and not x.is_floating_point() and (not len(x) or int(x.min()) >= 0)
        if ids and len(tokens) == row:
            tokens.append(x)
            return
        if tokens:
            raise DataError(f"input {row} is {_said(x)}, expected token ids (T,) from 0 as in row 0")
        if not x.is_floating_point():
            raise DataError(
                f"input {row} is {_said(x)}, expected a float tensor as the model reads it, or token ids (T,); apply "
                "the transform of your evaluation in the dataset"
            )
        check_input(x, row, shape)

    mapped = MappedSource(pairs, options.device, options.reader)
    found = mapped.labels(look)
    numbered = number_labels(found, options.classes, "the dataset", known)
    source: Source = mapped
    if tokens:
        padded = pad_tokens([ids.tolist() for ids in tokens], 0, "the dataset")
        source = TensorSource(padded.to(options.device))
    names = _names(dataset, len(found))
    return TrainingData.of(source, *numbered, names=names, notes=mapped.notes)


def _said(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _names(dataset: Any, count: int) -> tuple[str, ...]:
    for attribute in ("names", "filenames"):
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == count:
            return tuple(printable(str(name)) for name in found)
    samples, root = getattr(dataset, "samples", None), getattr(dataset, "root", None)
    if isinstance(samples, list) and len(samples) == count and root is not None:
        paths = [Path(str(sample[0])) for sample in samples]
        return tuple(
            printable((p.relative_to(root) if p.is_relative_to(root) else p).as_posix()) for p in paths
        )
    return ()
