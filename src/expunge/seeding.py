"""Seeds derived by role, so that data, training and unlearning vary independently."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch


def derive_seed(base: int, *roles: str | int | float) -> int:
    """Return a 63-bit seed that depends on the base seed and on every role, and on nothing else.

    The same arguments give the same seed in every process and on every machine; any change
    gives an unrelated one.
    """
    text = "\x1f".join([repr(int(base)), *(repr(role) for role in roles)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(base: int, *roles: str | int | float, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on ``device`` seeded by :func:`derive_seed`."""
    made = torch.Generator(device=device)
    made.manual_seed(derive_seed(base, *roles))
    return made


def sent(drawn: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return what was drawn on the CPU on ``device``, without waiting for an accelerator that is still at work.

    Numbers are drawn on the CPU so that a seed gives the same ones everywhere.
    """
    place = torch.device(device)
    if place.type not in ("cpu", "mps") and drawn.device.type == "cpu":  # MPS shares its memory with the CPU
        # From pageable memory the copy would first wait for everything that was asked of the device before.
        return drawn.pin_memory().to(place, non_blocking=True)
    return drawn.to(place)


@contextlib.contextmanager
def global_generator(source: torch.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block whose global draws follow ``source``, and restore the global state afterwards.

    Module initialisers and dropout in torch accept no generator; this is the one place that works around it.

    Args:
        source: one number is drawn from it.
        device: whose global generator is set beside that of the CPU; of a kind other than CUDA it is left alone.
    """
    seed = int(torch.randint(0, 2**62, (1,), generator=source, device=source.device).item())
    place = torch.device(device)
    with torch.random.fork_rng(devices=[]):
        # The device-wide torch.manual_seed would reseed accelerators too, outside the fork.
        torch.default_generator.manual_seed(seed)
        if place.type != "cuda":
            yield
            return
        state = torch.cuda.get_rng_state(place)
        try:
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
                yield
        finally:
            torch.cuda.set_rng_state(state, place)


def global_state() -> tuple[Any, ...]:
    """Return the state of the global generators of Python, NumPy and torch on the CPU, to be compared."""
    theirs: dict[str, Any] = np.random.get_state(legacy=False)
    state = theirs["state"]
    return random.getstate(), state["pos"], state["key"].tobytes(), torch.get_rng_state().numpy().tobytes()


@contextlib.contextmanager
def own_global_draws() -> Iterator[Callable[[int], None]]:
    """Run a block of somebody else's code that may draw from any global generator, and restore them all afterwards.

    Yields:
        a function that seeds them.
    """
    before, theirs, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number % 2**32)
        torch.default_generator.manual_seed(number)

    try:
        yield seed
    finally:
        random.setstate(before)
        np.random.set_state(theirs)
        torch.set_rng_state(tensors)
