"""A device that is none: tensors of the CPU that may not meet others, and a count of when the host would wait.

Usage: python pretend_device.py OUT.jsonl [METHOD ...] runs the equality part of benchmarks/accelerator.py on it. In a
process of its own, because a backend can be registered once and stays.

Like an accelerator it raises where tensors of two devices meet, copies only when it is asked to, and has to be waited
for where a value is read, a copy is not declared asynchronous or the shape of a result depends on values. Like MPS it
has no float64.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.repeat_interleave.Tensor, aten.bincount.default,
}  # fmt: skip
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
WITHIN_A_STEP = {"_step", "fetch", "mix"}


class OnDevice(torch.Tensor):
    """A tensor of the device, around one of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=torch.device(NAME, 0),
        )  # fmt: skip

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnDevice({self.inner!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        made = OnDevice(self.inner.detach().clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made._is_param = True
        memo[id(self)] = made
        return made

    def tolist(self) -> Any:
        DEVICE.wait()
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with DEVICE:
            return func(*args, **(kwargs or {}))


class Device(TorchDispatchMode):
    """Computes what is asked of the device; while it is entered, tensors can be made there."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def wait(self) -> None:
        """Count that the host waits, by the place in the package; in a training step or not."""
        frames = (frame for frame, _line in traceback.walk_stack(None))
        ours = [
            (frame.f_code, frame.f_lineno) for frame in frames if _of_the_package(frame.f_code.co_filename)
        ]
        inside = any(code.co_name in WITHIN_A_STEP for code, _line in ours)
        place = f"{Path(ours[0][0].co_filename).name}:{ours[0][1]}" if ours else "elsewhere"
        self.waits[("step " if inside else "") + place] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._pin_memory.default:
            return args[0]
        if func is aten.is_pinned.default:
            return False
        tensors = list(_tensors((args, kwargs)))
        here = any(isinstance(tensor, OnDevice) for tensor in tensors)
        asked = kwargs.get("device")
        asked_here = asked is not None and torch.device(asked).type == NAME
        if not here and not asked_here:
            return func(*args, **kwargs)
        result_here = here if asked is None else asked_here
        if func is aten._to_copy.default:
            moved = result_here != here
            if moved and not (result_here and kwargs.get("non_blocking")):
                self.wait()
        elif func is aten.copy_.default:
            result_here = isinstance(args[0], OnDevice)
            if result_here != isinstance(args[1], OnDevice):
                self.wait()
        elif here:
            self._check(func, args, tensors)
        if asked_here:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        plain = _map(_inner, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if not result_here:
            return result
        # what works in place returns the very tensor it was given
        given = {id(_inner(tensor)): tensor for tensor in tensors}
        return _map(lambda leaf: _wrapped(leaf, given, func), result)

    def _check(self, func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
        strangers = [t for t in tensors if not isinstance(t, OnDevice) and t.ndim]
        if strangers:
            raise RuntimeError(
                f"{func} was given tensors of two devices: {[t.shape for t in strangers]} of the CPU"
            )
        if func in READS:
            self.wait()
        if func in INDEXED:
            indices = [index for index in args[1] if index is not None]
            masks = [index for index in indices if index.dtype == torch.bool]
            # one mask that a single value is written to needs no list of positions
            fills = func is not aten.index.Tensor and len(indices) == 1 and args[2].numel() == 1
            if masks and not fills:
                self.wait()


DEVICE = Device()


@lru_cache
def _of_the_package(filename: str) -> bool:
    return "expunge" in Path(filename).parts


# torch's own walks over trees take a quarter of the time of a test on this device
def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _tensors(part)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        parts = [_map(change, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {name: _map(change, part) for name, part in tree.items()}
    return change(tree)


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnDevice) else leaf


def _wrapped(leaf: Any, given: dict[int, torch.Tensor], func: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if id(leaf) in given:
        return given[id(leaf)]
    if leaf.dtype == torch.float64:
        raise TypeError(f"{func} would make float64 on a device that has none")
    return OnDevice(leaf)


class Backend:
    """What torch asks a backend."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def register() -> None:
    """Make torch know the device."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    torch._C._set_only_lift_cpu_tensors(
        True
    )  # torch.tensor(..., device=...) makes it on the CPU, then moves it


@contextlib.contextmanager
def counted_waits(bench: Any) -> Iterator[Counter[str]]:
    """What the benchmark counts waits with, for this device."""
    DEVICE.waits.clear()
    found: Counter[str] = Counter()
    try:
        yield found
    finally:
        found.update(DEVICE.waits)


def main() -> None:
    out, *methods = sys.argv[1:]
    register()
    script = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"
    benchmark = runpy.run_path(str(script))
    benchmark["carry_out"].__globals__["waits"] = counted_waits
    sys.argv = [
        str(script), "--device", NAME, "--only", "equality", "--threads", "1", "--seconds", "100000", "--quick",
        "--out", out, "--methods", ",".join(methods),
    ]  # fmt: skip
    with DEVICE:
        benchmark["main"]()


if __name__ == "__main__":
    main()
