"""expunge: remove bad training data from a trained classifier, and measure that it worked."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from expunge.api import load_method, unlearn
    from expunge.data.examples import Batch, Examples
    from expunge.errors import ExpungeError
    from expunge.methods.base import Method, Needs, Request, Unlearned
    from expunge.tasks.corruption import CorruptionTask
    from expunge.training.devices import Devices
    from expunge.training.recipe import Recipe

_HOMES = {
    "unlearn": "expunge.api",
    "load_method": "expunge.api",
    "Batch": "expunge.data.examples",
    "Examples": "expunge.data.examples",
    "ExpungeError": "expunge.errors",
    "Method": "expunge.methods.base",
    "Needs": "expunge.methods.base",
    "Request": "expunge.methods.base",
    "Unlearned": "expunge.methods.base",
    "CorruptionTask": "expunge.tasks.corruption",
    "Devices": "expunge.training.devices",
    "Recipe": "expunge.training.recipe",
}

__all__ = [
    "Batch",
    "CorruptionTask",
    "Devices",
    "Examples",
    "ExpungeError",
    "Method",
    "Needs",
    "Recipe",
    "Request",
    "Unlearned",
    "__version__",
    "load_method",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `expunge list` and `import expunge` stay free of torch.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'expunge' has no attribute {name!r}")
