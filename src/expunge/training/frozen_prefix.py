"""What the frozen first blocks of a network put out, computed once for every example."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.joined import TensorSource
from expunge.training.loop import training_mode
from expunge.training.numerics import Numerics

_IN_MEMORY = 2**31
"""Bytes of outputs that are kept in memory; more go into a memory-mapped file."""
_ON_DISK = 2**35
_LOOK = 8
"""Examples by which the blocks are found."""
_ROUNDING = 0.02
"""Share of the largest output by which rounding may move one with the size of its batch."""


class _Reached(Exception):
    """The last frozen block has put out what it puts out."""


@dataclass(frozen=True)
class FrozenPrefix:
    """Outputs of the last frozen block, and how the network runs without what lies before it.

    Args:
        last: name of that block.
        skipped: names of frozen blocks before it, which need not run.
        outputs: (N, ...) of the last one, row by row of the training set.
        in_tuple: names of blocks that return a tuple of one tensor.
        shapes: of the outputs of the skipped ones, without the batch.
        inputs: (positions) -> inputs that the rest of the network reads beside them.
        examples: the training set, with positions in it as inputs.
        numerics: as in training.
        file: holds the outputs where they are too large for the memory.
    """

    last: str
    skipped: tuple[str, ...]
    outputs: Tensor
    in_tuple: set[str]
    shapes: dict[str, tuple[torch.Size, torch.dtype]]
    inputs: Callable[[Tensor], Tensor]
    examples: Examples
    numerics: Numerics
    file: Any = field(default=None, repr=False)

    @contextmanager
    def given_to(self, model: nn.Module) -> Iterator[Examples]:
        """Let ``model`` read positions in place of inputs inside a block, and return the examples to train on.

        Parameters, buffers, their names and modes stay as they are.
        """
        whole, now = model.forward, dict[str, Tensor]()

        def rest(positions: Tensor) -> Any:
            # What does not fit the memory stays where it is until a batch of it is read.
            stored = self.outputs[positions.to(self.outputs.device)]
            now["output"] = self.numerics.place_inputs(stored)
            return whole(self.inputs(positions))

        def stand_in(name: str) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                del args, kwargs
                output = now["output"]
                if name != self.last:
                    shape, dtype = self.shapes[name]
                    output = output.new_full((), float("nan"), dtype=dtype).expand(len(output), *shape)
                return (output,) if name in self.in_tuple else output

            return forward

        blocks = {name: model.get_submodule(name) for name in (self.last, *self.skipped)}
        # A forward of the instance comes before that of its class.
        model.forward = rest
        for name, block in blocks.items():
            block.forward = stand_in(name)
        try:
            yield self.examples
        finally:
            for module in (model, *blocks.values()):
                del module.forward


def frozen_prefix(model: nn.Module, examples: Examples, numerics: Numerics) -> FrozenPrefix | None:
    """Return what the frozen first blocks of ``model`` put out for ``examples``; ``None`` where there are none.

    They count only if training does not change what they put out: no parameter of theirs is trained, and dropout or
    batch normalisation within does not tell training from evaluation. What is found is tried on a few examples: the
    rest of the network must give the same logits to the bit.

    Args:
        model: on the device of ``numerics``; left as it is.
        examples: the training set, not augmented.
        numerics: as in training.
    """
    parameters = list(model.parameters())
    if len(examples) < 2 or all(parameter.requires_grad for parameter in parameters):
        return None
    look = examples.select(torch.arange(min(_LOOK, len(examples)), device=examples.device))
    trial = copy.deepcopy(model)
    x = numerics.place_inputs(next(look.batches(len(look))).x)
    training, _ = _trace(trial, x, numerics, train=True)
    candidates = training.before_training()
    if not candidates:
        return None
    evaluated, logits = _trace(trial, x, numerics, train=False)
    half, _ = _trace(trial, x[: len(x) // 2], numerics, train=False)
    last = next(
        (
            name
            for name in reversed(candidates)
            if torch.equal(training.outputs[name], evaluated.outputs[name])
            and _close(half.outputs[name], evaluated.outputs[name])
        ),
        None,
    )
    if last is None:
        return None
    skipped = training.outermost(candidates[: candidates.index(last)], last)
    positions = torch.zeros(len(examples.source), dtype=torch.int64, device=examples.device)
    positions[examples.index] = torch.arange(len(examples), device=examples.device)
    numbered = Examples(TensorSource(positions), examples.labels, examples.index, examples.n_classes)
    shapes = {name: (training.outputs[name].shape[1:], training.outputs[name].dtype) for name in skipped}

    def empty(rows: Tensor) -> Tensor:
        value = float("nan") if x.is_floating_point() else 0
        return x.new_full((), value).expand(len(rows), *x.shape[1:])

    def read(rows: Tensor) -> Tensor:
        wanted = examples.index[rows.to(examples.device)]
        return numerics.place_inputs(examples.source.fetch(wanted, None))

    for inputs, unused in ((empty, skipped), (read, skipped), (read, ())):
        found = FrozenPrefix(
            last,
            tuple(unused),
            evaluated.outputs[last],
            training.in_tuple,
            shapes,
            inputs,
            numbered,
            numerics,
        )
        if _same(trial, found, logits):
            return _filled(found, trial, examples)
    return None


@dataclass
class _Trace:
    """What a forward pass ran, in order."""

    events: list[tuple[str, bool]] = field(default_factory=list)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    in_tuple: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    trained: set[str] = field(default_factory=set)

    def before_training(self) -> list[str]:
        """Names of frozen blocks that have run, once, before anything trained begins; in the order they end."""
        begun = [name for name, ends in self.events if not ends]
        trained = [
            number for number, (name, ends) in enumerate(self.events) if name in self.trained and not ends
        ]
        first = trained[0] if trained else len(self.events)
        ended = [name for name, ends in self.events[:first] if ends]
        return [
            name for name in ended if name in self.frozen and name in self.outputs and begun.count(name) == 1
        ]

    def outermost(self, names: Sequence[str], last: str) -> tuple[str, ...]:
        """Return those of ``names`` that lie in no other of them, and not in ``last``."""
        taken = {*names, last}
        return tuple(
            name
            for name in names
            if not any(name.startswith(f"{other}.") for other in taken if other != name) and name != last
        )


def _trace(model: nn.Module, x: Tensor, numerics: Numerics, *, train: bool) -> tuple[_Trace, Any]:
    trace = _Trace()

    def begin(name: str, module: nn.Module, inputs: Any) -> None:
        trace.events.append((name, False))

    def end(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        trace.events.append((name, True))
        if isinstance(output, tuple) and len(output) == 1:
            output = output[0]
            trace.in_tuple.add(name)
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(x):
            trace.outputs[name] = output.detach().clone()

    with ExitStack() as hooks, torch.no_grad(), training_mode(model, train), numerics.autocast():
        for name, module in model.named_modules():
            inside = list(module.parameters())
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                trace.trained.add(name)
            if name and inside and not any(parameter.requires_grad for parameter in inside):
                trace.frozen.add(name)
            hooks.enter_context(module.register_forward_pre_hook(partial(begin, name)))
            hooks.enter_context(module.register_forward_hook(partial(end, name)))
        logits = model(x)
    return trace, logits


def _close(part: Tensor, whole: Tensor) -> bool:
    whole = whole[: len(part)].float()
    return bool((part.float() - whole).abs().max() <= _ROUNDING * whole.abs().max())


@torch.no_grad()
def _same(model: nn.Module, found: FrozenPrefix, logits: Any) -> bool:
    """Whether the rest of the network gives the same logits to the examples it was found by."""
    if not isinstance(logits, Tensor):
        return False
    rows = torch.arange(len(found.outputs), device=found.outputs.device)
    try:
        with found.given_to(model), training_mode(model, False), found.numerics.autocast():
            return torch.equal(model(rows), logits)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # a network that reads more of its blocks than one tensor


@torch.no_grad()
def _filled(found: FrozenPrefix, model: nn.Module, examples: Examples) -> FrozenPrefix | None:
    """Return ``found`` with the outputs of all examples."""
    numerics, file = found.numerics, None
    shape, dtype = found.outputs.shape[1:], found.outputs.dtype
    bytes_needed = len(examples) * shape.numel() * dtype.itemsize
    if bytes_needed <= _IN_MEMORY:
        outputs = torch.empty(len(examples), *shape, dtype=dtype, device=examples.device)
    elif bytes_needed <= _ON_DISK:
        file = tempfile.NamedTemporaryFile(prefix="expunge-")  # noqa: SIM115  (gone with the last use of the outputs)
        count = len(examples) * shape.numel()
        outputs = torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(-1, *shape)
    else:
        return None
    reached: list[Tensor] = []

    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        reached.append(output[0] if found.last in found.in_tuple else output)
        raise _Reached

    start, last = 0, model.get_submodule(found.last)
    with last.register_forward_hook(stop), training_mode(model, False), numerics.autocast():
        for batch in examples.batches(256):
            try:
                model(numerics.place_inputs(batch.x))
            except _Reached:
                outputs[start : start + len(batch)] = reached.pop().to(outputs.device)
            start += len(batch)
    return replace(found, outputs=outputs, file=file)
