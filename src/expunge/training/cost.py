"""What a piece of work cost: wall time, sample gradients, memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass
class Meter:
    """Counts work while it runs; use it as a context manager around the part to be measured.

    Attributes:
        seconds: wall time inside the ``with`` block.
        sample_gradients: examples that went through a forward and a backward pass, counted once for
            each loss they entered.
        peak_memory: bytes above what was in use at the start: the accelerator's allocations, or on the CPU
            the resident set of this process (``None`` where the system does not tell).
        parameters: number of parameters before, at the most, and after.
        log: one row per logged event.
    """

    device: str = "cpu"
    seconds: float = 0.0
    sample_gradients: int = 0
    peak_memory: int | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    log: list[dict[str, float]] = field(default_factory=list)

    def __enter__(self) -> Self:
        synchronise(self.device)  # what was asked for before is not this meter's
        self._base = self._reset_peak()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronise(self.device)
        self.seconds += time.perf_counter() - self._started
        peak = self._peak()
        if peak is not None and self._base is not None:
            self.peak_memory = max(0, peak - self._base, self.peak_memory or 0)

    def count(self, examples: int) -> None:
        """Add ``examples`` sample gradients."""
        self.sample_gradients += examples

    def write(self, **row: float) -> None:
        """Append a row to the log, with the seconds since the start."""
        self.log.append({"seconds": round(time.perf_counter() - self._started, 3), **row})

    def _reset_peak(self) -> int | None:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        try:
            # Writing 5 resets the high-water mark of the resident set (proc(5)); Linux only.
            _RESET.write_text("5")
        except OSError:
            return None
        return _resident("VmRSS")

    def _peak(self) -> int | None:
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM")


def synchronise(device: str) -> None:
    """Wait until ``device`` has done all that it was asked to do; the CPU has."""
    kind = torch.device(device).type
    wait = getattr(getattr(torch, kind, None), "synchronize", None)
    if kind != "cpu" and wait is not None:
        wait() if kind == "mps" else wait(device)


def _resident(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None
