"""Packages that are not always installed."""

from __future__ import annotations

import importlib
from typing import Any

from expunge.errors import InvalidInput


def load_extra(module: str, package: str, extra: str, why: str) -> Any:
    """Import ``module`` of an optional ``package``, which ``extra`` of expunge installs; ``why`` names what needs it.

    Raises:
        InvalidInput: it is not installed, or cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    # A package built for another torch fails by a RuntimeError.
    except (ImportError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise InvalidInput(
            f"{why} needs {package}, which cannot be imported ({said}); run: pip install 'expunge[{extra}]'"
        ) from error
