"""What a repair was made from, as hashes: the checkpoint, the data, the settings, the code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import expunge
from expunge.data.images import ImageSource
from expunge.data.joined import TensorSource
from expunge.errors import StoreError
from expunge.fingerprint import fingerprint
from expunge.inputs.training_data import DataOptions, TrainingData


@dataclass(frozen=True)
class Provenance:
    """Enough to tell whether another repair was made from the same things: hashes, and package -> version.

    Args:
        checkpoint: of the file (sha256).
        data: of every input as the model reads it, label and name.
        forget: of the positions.
        settings: of the method's name and settings, and of whatever else was chosen.
        code: of this package's source files.
        versions: of this package and those it computes with.
    """

    checkpoint: str
    data: str
    forget: str
    settings: str
    code: str
    versions: dict[str, str]


def provenance(checkpoint: Path, data: TrainingData, positions: Tensor, *settings: Any) -> Provenance:
    """Return the hashes of a repair; ``settings`` are dataclasses, mappings and plain values."""
    versions = {
        "expunge": expunge.__version__,
        "torch": torch.__version__,
        "numpy": importlib.metadata.version("numpy"),
        "python": platform.python_version(),
    }
    chosen = fingerprint(*(part.reading if isinstance(part, DataOptions) else part for part in settings))
    forget = fingerprint(positions.to(torch.int64))
    return Provenance(file_hash(checkpoint), data_hash(data), forget, chosen, code_hash(), versions)


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, as ``sha256sum`` prints it.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}; it was there before, check the disk") from error


def data_hash(data: TrainingData) -> str:
    """Return a hash of inputs, labels, classes and names; random transforms make it differ each time."""
    examples = data.examples
    source = examples.source
    if isinstance(source, ImageSource):
        content = fingerprint(source.images, source.mean, source.std)
    elif isinstance(source, TensorSource):
        content = fingerprint(source.inputs)
    else:
        content = fingerprint([fingerprint(batch.x) for batch in examples.batches(64)])
    return fingerprint(content, examples.index, examples.labels, data.classes, data.names)


def arch_hash(arch: str) -> str:
    """Return a hash of what ``build_architecture`` makes of ``arch``: its text, its own file and this package."""
    source = Path(arch.partition("?")[0].rpartition(":")[0]).expanduser()
    own = file_hash(source) if source.suffix == ".py" and source.is_file() else ""
    return fingerprint(arch, own, code_hash())


def code_hash() -> str:
    """Return a hash of every source file of this package."""
    root = Path(expunge.__file__).parent
    files = sorted(root.rglob("*.py"))
    return fingerprint({path.relative_to(root).as_posix(): file_hash(path) for path in files})
