"""From an input that a formula cannot use to a metric that has no value here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from expunge.errors import InvalidInput
from expunge.metrics.base import NotDefined


@contextmanager
def undefined_where_invalid() -> Iterator[None]:
    """Run a block in which :class:`InvalidInput` becomes :class:`NotDefined` with the same message."""
    try:
        yield
    except InvalidInput as error:
        raise NotDefined(str(error)) from error
