"""How many threads a worker computes with."""

from __future__ import annotations

import math
import os

import torch

from expunge.sweep.plan import Plan

_SMALL = 28 * 28
"""Pixels of an image up to which a worker gets one thread."""


def worker_threads(plan: Plan, workers: int) -> int:
    """Return the number of threads for each of ``workers`` processes on this machine.

    $OMP_NUM_THREADS where it is a number; else one for images of at most 28 x 28 pixels on a processor, and for
    others an equal share of the cores, but no more than torch is set to in this process.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    share = max(1, min((os.cpu_count() or 1) // workers, torch.get_num_threads()))
    # The steps of such networks take a millisecond or so, and threads wait for each other at every layer; where
    # another program holds a core they spin meanwhile. Three epochs of a ConvNet on digits, batches of 128, on
    # two cores that were also used by others: 4 s with one thread, 21 to 27 s with two.
    small = all(
        training.numerics.device == "cpu" and math.prod(training.data.load("cpu").shape[1:]) <= _SMALL
        for training in plan.trainings
    )
    return 1 if small else share
