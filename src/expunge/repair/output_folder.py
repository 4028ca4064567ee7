"""A folder of results that is whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from expunge.data.location import check_regular
from expunge.errors import InvalidInput, StoreError
from expunge.store.atomic import partial_path, remove_abandoned


@contextlib.contextmanager
def output_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder to write into; it becomes ``path`` when the block ends without an error.

    It is ``.NAME.partial-...`` beside ``path``. After an error or an interruption it stays until the next run, if
    anything is in it, and the error carries a note that names it.

    Raises:
        InvalidInput: ``path`` is there and not empty, or is a file.
        StoreError: the folder cannot be made or moved into place.
    """
    path = Path(path).expanduser().absolute()
    _check_free(path)
    remove_abandoned(path.parent, path.name)
    aside = partial_path(path)
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"{aside} cannot be made: {error}; check the folder's permissions") from error
    try:
        yield aside
        _check_free(path)  # somebody else may have written there meanwhile
        try:
            if path.exists():
                path.rmdir()  # not every system renames onto an empty folder
            os.rename(aside, path)  # noqa: PTH104  Path.rename documents no atomicity
        except OSError as error:
            raise StoreError(f"{path} cannot be put into place: {error}; move the folder there") from error
    except BaseException as error:
        if any(aside.iterdir()):
            error.add_note(f"what was written until then is in {aside}")
        else:
            aside.rmdir()
        raise


def _check_free(path: Path) -> None:
    check_regular(path)
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"{path} is a file, expected a folder to write into; choose another name")
    if path.is_dir() and any(path.iterdir()):
        raise InvalidInput(f"{path} is there already and not empty; choose another name, or move it away")
