"""A data set by its name, or from a file of one's own."""

from __future__ import annotations

from pathlib import Path

from expunge.data.images import ImageData
from expunge.data.npz import load_npz
from expunge.registry import DATASETS


def load_data(name: str, root: Path | None = None) -> ImageData:
    """Return the data set called ``name``, or the one in the ``.npz`` file at that path.

    A name is one in the table of data sets, looked for below ``root`` where it is read from files, or a
    ``"module:function"`` path.

    Raises:
        UnknownName: no such data set.
        DataError: files are missing or cannot be used.
    """
    if name.endswith(".npz"):
        return load_npz(Path(name))
    data: ImageData = DATASETS.get(name)(root)
    return data
