"""Arrays as inputs of a model: what each dtype and shape means, and sequences padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.data.examples import Source
from expunge.data.images import ImageSource, channel_statistics
from expunge.data.joined import TensorSource
from expunge.data.npz import array_names, as_images, read_arrays
from expunge.errors import DataError
from expunge.inputs.pictures import normalisation
from expunge.inputs.training_data import DataOptions, TrainingData, number_labels

Part = Literal["train", "validation"]
_Array = npt.NDArray[Any]


def load_arrays(path: Path, options: DataOptions, part: Part = "train") -> TrainingData:
    """Read ``images`` or ``inputs``, and ``labels``, from a ``.npz`` file: all of them, in their order.

    ``images`` are uint8, or float in [0, 1], which is rounded to 0..255, and are normalised as the options
    say. ``inputs`` go to the model as they are: float (N, ...), or integers (N, T), the token ids of text.
    Labels are integers or strings (N,). Optional: ``classes`` and ``names`` (strings), and any further
    array of N values, which a forget list can name as a column. The validation part is ``test_images`` (or
    ``test_inputs``) and ``test_labels``, where the file has them.

    Raises:
        DataError: the file is unreadable, lacks an array, or holds arrays that do not fit.
    """
    held = array_names(path)
    test = part == "validation" and "test_labels" in held
    prefix = "test_" if test else ""
    kind = "images" if f"{prefix}images" in held else "inputs"
    wanted = (f"{prefix}{kind}", f"{prefix}labels")
    extra = [] if test else [name for name in held if name not in wanted and not name.startswith("test_")]
    arrays = read_arrays(path, wanted, tuple({*extra, *({"classes"} & set(held))}))
    inputs, labels = (arrays[name] for name in wanted)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{path}: {prefix}labels are {labels.dtype} {labels.shape}; expected integers or strings of shape (N,)"
        )
    if len(labels) != len(inputs) or len(labels) == 0:
        raise DataError(
            f"{path}: {len(inputs)} {prefix}{kind} but {len(labels)} {prefix}labels; expected one label for each"
        )
    known = tuple(str(name) for name in arrays["classes"].tolist()) if "classes" in arrays else ()
    # The file's own classes number labels that are text; numbers stand for them already.
    own = known if labels.dtype.kind == "U" else ()
    numbered = number_labels(labels.tolist(), options.classes or own, f"{path}: {prefix}labels", known)
    source: Source
    notes: tuple[str, ...] = ()
    if kind == "images":
        images = as_images(f"{path}: images", inputs)
        mean, std = normalisation(options, images.shape[1], channel_statistics(images))
        source = ImageSource(images.to(options.device), mean, std, options.augmentation)
        notes = (f"{len(images)} images, {' x '.join(map(str, images.shape[1:]))}",)
    else:
        source = TensorSource(read_inputs(str(path), inputs).to(options.device))
    columns = {
        name: array.tolist()
        for name, array in arrays.items()
        if name in extra and name not in ("classes", "names") and array.shape == labels.shape
    }
    names = tuple(str(name) for name in arrays["names"].tolist()) if "names" in extra else ()
    if names and len(names) != len(labels):
        raise DataError(f"{path}: {len(names)} names but {len(labels)} labels; expected one for each")
    return TrainingData.of(source, *numbered, names=names, columns=columns, notes=notes)


def read_inputs(what: str, array: _Array) -> Tensor:
    """Return float32 (N, ...), or int64 (N, T) token ids; refuse other dtypes and values that are not finite."""
    if array.dtype.kind == "f" and array.ndim >= 2:
        inputs = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        finite = torch.isfinite(inputs).flatten(1).all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise DataError(
                f"{what}: row {row} contains NaN or inf ({int((~finite).sum())} rows do); fill the gaps, or take "
                "those rows out"
            )
        return inputs
    if array.dtype.kind in "iu" and array.dtype != np.uint8 and array.ndim == 2:
        if array.min() < 0:
            raise DataError(f"{what}: token ids must not be negative, but {int(array.min())} is among them")
        return torch.from_numpy(array.astype(np.int64))
    raise DataError(
        f"{what}: inputs are {array.dtype} {array.shape}, expected float (N, ...) as the model reads them, or "
        "integers (N, T), the token ids of text; save pixels as 'images'"
    )


def pad_tokens(sequences: Sequence[Sequence[int]], padding: int, where: str) -> Tensor:
    """Return int64 (N, T): each sequence, then ``padding`` up to the longest; refuse one without a token."""
    empty = next((row for row, tokens in enumerate(sequences) if len(tokens) == 0), None)
    if empty is not None:
        raise DataError(f"{where}: row {empty} has no token; take it out, or give it a text")
    padded = torch.full((len(sequences), max(map(len, sequences))), padding, dtype=torch.int64)
    for row, tokens in enumerate(sequences):
        padded[row, : len(tokens)] = torch.as_tensor(tokens, dtype=torch.int64)
    return padded
