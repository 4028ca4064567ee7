"""Everything a sweep keeps, in one folder unless told otherwise."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from expunge.store.database import Database

if TYPE_CHECKING:
    from expunge.store.weights import WeightStore


class Store:
    """Records in ``<folder>/store.sqlite`` and weights in ``<folder>/weights``; use it as a context manager.

    Args:
        folder: made if missing.
        url: SQLAlchemy URL of a database that holds the records instead.
        weights: folder or fsspec URL of the weights instead; machines that share a sweep share it too.
    """

    def __init__(self, folder: str | Path, url: str | None = None, weights: str | Path | None = None) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._weights = self.folder / "weights" if weights is None else weights
        self.database = Database(self.folder / "store.sqlite" if url is None else url)

    @cached_property
    def weights(self) -> WeightStore:
        """The weight files; raises StoreError for a URL that fsspec does not know or has no package for."""
        # Imported on first use: reading records needs no torch.
        from expunge.store.weights import WeightStore

        return WeightStore(self._weights)

    def close(self) -> None:
        """Release the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
