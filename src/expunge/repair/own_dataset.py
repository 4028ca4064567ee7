"""A dataset object of the user's own, from a factory in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.examples import Examples, MappedSource, Source, read_labels
from expunge.data.joined import TensorSource
from expunge.errors import DataError
from expunge.repair.arrays import pad_tokens
from expunge.repair.training_data import DataOptions, TrainingData, number_labels

_INPUTS = ("input", "inputs", "x", "image", "pixel_values", "input_ids", "features")
_LABELS = ("label", "labels", "y", "target")


class _Pairs:
    """A dataset whose items are dictionaries, as one of (input, label) pairs."""

    def __init__(self, dataset: Any, inputs: str, label: str) -> None:
        self.dataset, self._input, self._label = dataset, inputs, label

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        item = self.dataset[row]
        return item[self._input], item[self._label]


def load_dataset_object(dataset: Any, options: DataOptions) -> TrainingData:
    """Wrap a map-style dataset; its inputs go to the model as they are.

    Items are (input, label) pairs or dictionaries. An input is a float tensor, or token ids: 1-D integers,
    padded with 0 to one length. Names come from ``dataset.names``, ``dataset.filenames`` or torchvision's
    ``dataset.samples``, class names from ``dataset.classes``. Every item is read once, to check it; float
    inputs are read again whenever they are needed, so random transforms go on working.

    Raises:
        DataError: no map-style dataset, inputs of another kind or of unequal shape, NaN or inf, or labels
            that are no class numbers.
    """
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and len(dataset):
        dataset = _as_pairs(dataset, options)
    found = read_labels(dataset)
    known = tuple(str(name) for name in getattr(_inner(dataset), "classes", ()))
    labels, classes, named = number_labels(found.tolist(), options.classes, "the dataset", known)
    source = _source(dataset, torch.device(options.device))
    names = _names(_inner(dataset), len(labels))
    return TrainingData(Examples.all_of(source, labels, len(classes)), classes, names, named_classes=named)


def _inner(dataset: Any) -> Any:
    return dataset.dataset if isinstance(dataset, _Pairs) else dataset


def _as_pairs(dataset: Any, options: DataOptions) -> Any:
    item = dataset[0]
    if not isinstance(item, Mapping):
        return dataset
    inputs = options.inputs[0] if options.inputs else next((name for name in _INPUTS if name in item), None)
    label = options.label or next((name for name in _LABELS if name in item), None)
    for name, what in ((inputs, "inputs"), (label, "label")):
        if name is None or name not in item:
            raise DataError(
                f"items of the dataset hold {', '.join(map(str, item))}, but no {name or what!r}; name the entry "
                f"with --{what}"
            )
    assert inputs is not None
    assert label is not None
    return _Pairs(dataset, inputs, label)


def _source(dataset: Any, device: torch.device) -> Source:
    first = _tensor(dataset, 0)
    if first.ndim == 1 and not first.is_floating_point():
        tokens = [_tensor(dataset, row) for row in range(len(dataset))]
        for row, ids in enumerate(tokens):
            if ids.ndim != 1 or ids.is_floating_point() or (len(ids) and int(ids.min()) < 0):
                raise DataError(f"input {row} is {_said(ids)}, expected token ids (T,) from 0 as in row 0")
        return TensorSource(pad_tokens([ids.tolist() for ids in tokens], 0, "the dataset").to(device))
    for row in range(len(dataset)):
        tensor = _tensor(dataset, row)
        if not tensor.is_floating_point():
            raise DataError(
                f"input {row} is {_said(tensor)}, expected a float tensor as the model reads it, or token ids "
                "(T,); apply the transform of your evaluation in the dataset"
            )
        if tensor.shape != first.shape:
            raise DataError(
                f"inputs must have one shape, but row {row} has {tuple(tensor.shape)} and row 0 has "
                f"{tuple(first.shape)}; resize them in the dataset"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"input {row} contains NaN or inf; remove or repair it")
    return MappedSource(dataset, device)


def _tensor(dataset: Any, row: int) -> Tensor:
    try:
        return torch.as_tensor(dataset[row][0])
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"input {row} is a {type(dataset[row][0]).__name__}, expected a tensor as the model reads it; apply "
            "the transform of your evaluation in the dataset"
        ) from error


def _said(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _names(dataset: Any, count: int) -> tuple[str, ...]:
    for attribute in ("names", "filenames"):
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == count:
            return tuple(str(name) for name in found)
    samples, root = getattr(dataset, "samples", None), getattr(dataset, "root", None)
    if isinstance(samples, list) and len(samples) == count and root is not None:
        paths = [Path(str(sample[0])) for sample in samples]
        return tuple((p.relative_to(root) if p.is_relative_to(root) else p).as_posix() for p in paths)
    return ()
