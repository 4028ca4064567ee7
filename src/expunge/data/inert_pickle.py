"""Pickled image batches read as plain data: no pickle machine runs, no name is imported or called.

The original CIFAR batches are Python 2 pickles. Unpickling a file means executing it, so the file is only
split into opcodes here, and the few that those batches contain are given a meaning. Names such as
``numpy.dtype`` stay text to compare with.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from expunge.errors import DataError

T = TypeVar("T")
_NAMES = ("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")


def read_inert(path: Path) -> dict[bytes, object]:
    """Read a Python 2 pickle of one dictionary without executing it.

    Keys and strings come back as ``bytes``; other values are ints, None, False, lists, tuples,
    dictionaries and uint8 arrays. Nothing else has a reading.

    Raises:
        DataError: the file cannot be read, is truncated, or has an opcode, a name or a structure that
            these batches do not contain.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            reader.step(opcode.name, argument)
        match reader.stack:
            case [dict() as content]:
                return content
        raise ValueError("the file does not hold one dictionary")
    except OSError as error:
        raise DataError(f"{path}: expected a readable batch, but {error.strerror}; check the path") from error
    except (ValueError, IndexError) as error:
        reason = "a value is missing" if isinstance(error, IndexError) else error
        raise DataError(
            f"{path}: expected a batch of images pickled as plain data, but {reason}; nothing in the file "
            "was executed; get the original file again"
        ) from error


@dataclass(frozen=True)
class _Name:
    """``module name`` as the file spells it; nothing is behind it."""

    text: str


@dataclass(frozen=True)
class _Call:
    """A call that the file asks for, recorded and never made."""

    name: _Name
    arguments: tuple[object, ...]


class _Reader:
    """The stack that opcodes push data on and gather data from."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self._marks: list[int] = []

    def step(self, opcode: str, argument: object) -> None:
        """Apply one opcode; ValueError or IndexError where it makes no sense."""
        stack = self.stack
        match opcode:
            # What is put into the memo is never fetched in these files, so there is none.
            case "PROTO" | "BINPUT" | "LONG_BINPUT" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWFALSE":
                stack.append(False)
            case "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":
                stack.append(str(argument).encode("latin-1"))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(self._above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPENDS":
                items = self._above_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEMS":
                items = self._above_mark()
                keys = [_expect(key, bytes) for key in items[::2]]
                _expect(stack[-1], dict).update(zip(keys, items[1::2], strict=True))
            case "GLOBAL":
                if argument not in _NAMES:
                    raise ValueError(f"it asks for {str(argument).replace(' ', '.')} (opcode GLOBAL)")
                stack.append(_Name(str(argument)))
            case "REDUCE":
                arguments, name = _expect(stack.pop(), tuple), _expect(stack.pop(), _Name)
                stack.append(_Call(name, arguments))
            case "BUILD":
                state, call = stack.pop(), _expect(stack.pop(), _Call)
                stack.append(_built(call, state))
            case _:
                raise ValueError(f"it has the opcode {opcode}, which those batches do not contain")

    def _above_mark(self) -> list[object]:
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _expect(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"it has a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _built(call: _Call, state: object) -> object:
    """Value of the two recorded patterns that a uint8 array consists of."""
    match call.name.text, call.arguments, state:
        case "numpy dtype", (b"u1", 0, 1), (3, b"|", None, None, None, -1, -1, 0):
            return call
        case (
            "numpy.core.multiarray _reconstruct",
            (_Name("numpy ndarray"), (0,), b"b"),
            (1, tuple() as shape, _Call(_Name("numpy dtype"), (b"u1", 0, 1)), False, bytes() as content),
        ):
            sizes = [_expect(size, int) for size in shape]
            if min(sizes, default=0) < 0 or math.prod(sizes) != len(content):
                raise ValueError(f"an array of shape {tuple(sizes)} comes with {len(content)} bytes")
            return np.frombuffer(content, dtype=np.uint8).reshape(sizes)
    raise ValueError(f"it fills a {call.name.text.replace(' ', '.')} that is no array of unsigned bytes")
