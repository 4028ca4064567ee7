"""A dataset object of the user's own, from a factory in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.examples import Examples, Source
from expunge.data.joined import TensorSource
from expunge.data.mapped import MappedSource, as_pairs, check_input
from expunge.errors import DataError
from expunge.inputs.arrays import pad_tokens
from expunge.inputs.row_keys import printable
from expunge.inputs.training_data import DataOptions, TrainingData, number_labels


def load_dataset_object(dataset: Any, options: DataOptions) -> TrainingData:
    """Wrap a map-style dataset; its inputs go to the model as they are.

    Items are (input, label) pairs or dictionaries. An input is a float tensor, or token ids: 1-D integers,
    padded with 0 to one length. Names come from ``dataset.names``, ``dataset.filenames`` or torchvision's
    ``dataset.samples``, class names from ``dataset.classes``. Every item is read once, to check it; float
    inputs are kept as ``options`` say, but where the dataset draws random numbers.

    Raises:
        DataError: no map-style dataset, inputs of another kind or of unequal shape, NaN or inf, or labels
            that are no class numbers.
    """
    pairs = as_pairs(dataset, options.inputs[0] if options.inputs else None, options.label)
    known = tuple(str(name) for name in getattr(dataset, "classes", None) or ())
    tokens: list[Tensor] = []
    shape: torch.Size | None = None

    def look(x: Tensor, row: int) -> None:
        nonlocal shape
        shape = x.shape if shape is None else shape
        if (
            len(tokens) == row
            and x.ndim == 1
            and not x.is_floating_point()
            and (not len(x) or int(x.min()) >= 0)
        ):
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
    labels, classes, named = number_labels(found, options.classes, "the dataset", known)
    source: Source = mapped
    if tokens:
        padded = pad_tokens([ids.tolist() for ids in tokens], 0, "the dataset")
        source = TensorSource(padded.to(options.device))
    names = _names(dataset, len(labels))
    examples = Examples.all_of(source, labels, len(classes))
    return TrainingData(examples, classes, names, named_classes=named, notes=mapped.notes)


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
