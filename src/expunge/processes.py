"""How the processes that work for this one are started."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from typing import Literal


def start_method(*preloaded: str) -> Literal["spawn", "forkserver"]:
    """Return how to start processes that all import ``preloaded``: on Linux by a server that has done so once.

    It computes nothing and may be forked; elsewhere system libraries forbid that. Its environment is that of its own
    start, see :func:`take_over`.
    """
    if not sys.platform.startswith("linux"):
        return "spawn"
    multiprocessing.set_forkserver_preload(list(preloaded))
    return "forkserver"


def take_over(environment: Mapping[str, str]) -> None:
    """Give this process the environment of the one that started it."""
    os.environ.clear()
    os.environ.update(environment)
