"""The one training loop: the only place that calls backward on a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples
from expunge.errors import Diverged, InvalidInput
from expunge.training.batchnorm import running_statistics
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.schedule import Schedule, constant
from expunge.training.team import current_team


class Loss(NamedTuple):
    """A scalar to minimise and the number of sample gradients its backward pass computes."""

    value: Tensor
    gradients: int


class Objective(Protocol):
    """Turns a model and a batch into a loss."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss: ...  # noqa: D102


Progress = Callable[[float], None]
"""Receives the share of the work that is done, in [0, 1]."""


def silent(share: float) -> None:
    """A progress callback that shows nothing."""


def cross_entropy(model: nn.Module, batch: Batch) -> Loss:
    """Mean cross-entropy of the given labels."""
    return Loss(nn.functional.cross_entropy(model(batch.x).float(), batch.y), len(batch))


def fit(
    model: nn.Module,
    epochs: Iterable[Iterable[Batch]],
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    numerics: Numerics,
    meter: Meter,
    *,
    schedule: Schedule = constant,
    steps: int = 1,
    progress: Progress = silent,
) -> float:
    """Minimise ``objective`` over the batches of every epoch, in place; return the last epoch's mean loss.

    In a process that shares a training with others (:func:`expunge.training.launch.launch`) a step is made on all
    of a batch together, each process computing the objective of its part. The result is that of one process if
    the objective is a mean over its batch of what depends on one example, plus what does not depend on the batch.

    Args:
        model: in training mode while this runs, in its former mode afterwards.
        epochs: one iterable of batches for each epoch.
        objective: loss of a batch.
        optimizer: over any of the model's parameters; its learning rate is scaled by ``schedule``.
        numerics: precision and memory format of the forward passes.
        meter: counts sample gradients.
        schedule: factor on the learning rate, of (step, ``steps``).
        steps: number of steps the schedule and the progress are laid out for.
        progress: called after each step.

    Raises:
        Diverged: the loss of an epoch is not finite.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    step, mean = 0, 0.0
    team = current_team()
    stepping = (
        nullcontext(partial(_step, model, objective, optimizer, numerics))
        if team is None
        else team.stepping(model, objective, optimizer, numerics)
    )
    with training_mode(model), _restored(optimizer), stepping as make_step:
        for number, batches in enumerate(epochs):
            total, seen, gradients = torch.zeros((), device=numerics.device), 0, 0
            for batch in batches:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule(min(step, steps - 1), steps)
                loss = make_step(batch)
                gradients += loss[1]
                # kept on the device: reading it every step would wait for the accelerator
                total += loss[0] * len(batch)
                seen += len(batch)
                step += 1
                progress(min(1.0, step / steps))
            if team is not None:
                total, summed = team.sum(total, total.new_tensor(gradients, dtype=torch.float64))
                gradients = int(summed)
            meter.count(gradients)
            mean = float(total) / max(1, seen)
            if not math.isfinite(mean):
                raise Diverged(
                    f"the training loss became {mean} in epoch {number + 1} (step {step}) at learning rate "
                    f"{rates[0]:g}; lower the learning rate"
                )
    return mean


def _step(
    model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, numerics: Numerics, batch: Batch
) -> tuple[Tensor, int]:
    """Make one step on ``batch``; return its loss and the number of its sample gradients.

    A batch of one example has no statistics: it is normalised by the running ones.
    """
    placed = Batch(numerics.place_inputs(batch.x), batch.y, batch.index)
    with numerics.autocast(), running_statistics(model) if len(batch) == 1 else nullcontext():
        loss = objective(model, placed)
    optimizer.zero_grad(set_to_none=True)
    loss.value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.value.detach(), loss.gradients


@contextmanager
def _restored(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Give every parameter group its learning rate back afterwards."""
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def first_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Return the first of several outputs, in a sequence or a dictionary; a forward hook."""
    del module, inputs
    if isinstance(output, Mapping):
        return next(iter(output.values()), None)
    return output[0] if isinstance(output, tuple | list) and output else output


@contextmanager
def training_mode(model: nn.Module, mode: bool = True) -> Iterator[None]:
    """Put the model in training (or evaluation) mode and restore every module's own mode afterwards.

    In training mode a model with auxiliary heads returns its first output alone.
    """
    modes = {module: module.training for module in model.modules()}
    model.train(mode)
    try:
        with model.register_forward_hook(first_output) if mode else nullcontext():
            yield
    finally:
        for module, former in modes.items():
            module.training = former


def predict(
    model: Callable[[Tensor], Tensor], examples: Examples, numerics: Numerics, batch_size: int = 1024
) -> Tensor:
    """Return float32 logits (N, n_classes) in the order of ``examples``, in evaluation mode."""
    return _logits(model, examples, numerics, examples.batches(batch_size))[0]


@torch.no_grad()  # else the graph of every batch stays until the last
def _logits(
    model: Callable[[Tensor], Tensor], examples: Examples, numerics: Numerics, batches: Iterable[Batch]
) -> tuple[Tensor, Tensor]:
    outputs = [torch.empty(0, examples.n_classes, device=examples.device)]
    labels = [examples.labels[:0]]
    with training_mode(model, False) if isinstance(model, nn.Module) else nullcontext():
        for batch in batches:
            with numerics.autocast():
                outputs.append(model(numerics.place_inputs(batch.x)).float())
            labels.append(batch.y)
    team = current_team()
    logits = torch.cat(outputs)
    return logits if team is None else team.agree(logits), torch.cat(labels)


def accuracy(
    model: Callable[[Tensor], Tensor],
    examples: Examples,
    numerics: Numerics,
    batch_size: int = 1024,
    *,
    augmentation: torch.Generator | None = None,
) -> float:
    """Share of ``examples`` whose largest logit is at their label; NaN logits count as wrong.

    With ``augmentation``, a CPU generator, every input is augmented by its draws.

    Raises:
        InvalidInput: there are no examples.
    """
    if len(examples) == 0:
        raise InvalidInput("accuracy is not defined over no examples; check that the set is not empty first")
    batches = examples.batches(batch_size, augmentation, augment=augmentation is not None)
    logits, labels = _logits(model, examples, numerics, batches)
    right = (logits.argmax(1) == labels) & ~logits.isnan().any(1)
    return float(right.cpu().double().mean())  # not every accelerator has float64
