"""Memory that does not suffice: which setting lowers the need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from expunge.errors import ExpungeError
from expunge.methods.base import Method


@contextlib.contextmanager
def enough_memory(doing: str, remedy: str) -> Iterator[None]:
    """Say what to change where the block runs out of memory.

    Raises:
        ExpungeError: it did; ``doing`` and ``remedy`` are in the message.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator raises a plain one.
        said = str(error).lower()
        short = isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said
        if not short or isinstance(error, ExpungeError):
            raise
        raise ExpungeError(f"out of memory while {doing}; {remedy}") from error


def smaller(method: Method) -> str:
    """Return the options under which ``method`` takes less memory."""
    batch = getattr(method, "batch_size", None)
    ways = []
    if isinstance(batch, int) and batch > 1:
        ways.append(f"--set batch_size={batch // 2} (it was {batch})")
    spare = getattr(method, "spare", None)
    if (
        isinstance(spare, float | int)
        and spare > 0
        and "spare" not in method.without_effect(method.settings())
    ):
        ways.append(f"--set spare={spare / 2:g} (fewer added neurons)")
    ways.append("--device cpu")
    return f"lower it with {', '.join(ways[:-1])}, or use {ways[-1]}" if len(ways) > 1 else f"use {ways[0]}"
