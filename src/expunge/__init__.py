"""expunge: remove bad training data from a trained classifier, and measure that it worked.

- :func:`expunge.unlearn`: a model and a data set in, a repaired copy of the model out.
- :func:`expunge.clean`, :func:`expunge.audit`: the commands of these names, from files to tables.
- :func:`expunge.load_method`: a method by name; "expunge list methods" prints the names.
- :class:`expunge.Method`: the base class of one's own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from expunge.api import load_method, unlearn
    from expunge.data.examples import Batch, Examples
    from expunge.detection.find import find
    from expunge.errors import ExpungeError
    from expunge.jobs import audit, clean
    from expunge.methods.base import Method, Needs, Request, Unlearned
    from expunge.recording.hugging_face import HuggingFaceRecording
    from expunge.recording.lightning import LightningRecording
    from expunge.recording.recording import Recording
    from expunge.result import Result
    from expunge.tasks.corruption import CorruptionTask
    from expunge.training.numerics import Devices
    from expunge.training.recipe import Recipe

_HOMES = {
    "audit": "expunge.jobs",
    "clean": "expunge.jobs",
    "Result": "expunge.result",
    "unlearn": "expunge.api",
    "load_method": "expunge.api",
    "find": "expunge.detection.find",
    "Recording": "expunge.recording.recording",
    "HuggingFaceRecording": "expunge.recording.hugging_face",
    "LightningRecording": "expunge.recording.lightning",
    "Batch": "expunge.data.examples",
    "Examples": "expunge.data.examples",
    "ExpungeError": "expunge.errors",
    "Method": "expunge.methods.base",
    "Needs": "expunge.methods.base",
    "Request": "expunge.methods.base",
    "Unlearned": "expunge.methods.base",
    "CorruptionTask": "expunge.tasks.corruption",
    "Devices": "expunge.training.numerics",
    "Recipe": "expunge.training.recipe",
}

__all__ = [
    "Batch",
    "CorruptionTask",
    "Devices",
    "Examples",
    "ExpungeError",
    "HuggingFaceRecording",
    "LightningRecording",
    "Method",
    "Needs",
    "Recipe",
    "Recording",
    "Request",
    "Result",
    "Unlearned",
    "__version__",
    "audit",
    "clean",
    "find",
    "load_method",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `expunge list` and `import expunge` stay free of torch.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'expunge' has no attribute {name!r}")


def __dir__() -> list[str]:
    # What can be imported is what tab completion and help() show.
    return sorted(__all__)
