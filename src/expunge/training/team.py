"""The processes that share one training, as one of them sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn

from expunge.data.examples import Batch
from expunge.training.numerics import Numerics
from expunge.training.sharding import sharded
from expunge.training.shared_statistics import SharedStatistics

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from expunge.training.loop import Objective

_Value = TypeVar("_Value")
_joined: list[Team] = []


def current_team() -> Team | None:
    """Return the team this process was launched in; ``None`` for a process on its own."""
    return _joined[-1] if _joined else None


@contextmanager
def member_of(team: Team) -> Iterator[None]:
    """Run a block in which :func:`current_team` is ``team``."""
    _joined.append(team)
    try:
        yield
    finally:
        _joined.pop()


class Part(NamedTuple):
    """What one process takes of a batch.

    Attributes:
        batch: its examples.
        weight: of their mean in the mean over the batch; all processes' sum to 1.
        divided: whether the batch is divided; else every process has all of it.
    """

    batch: Batch
    weight: float
    divided: bool


def part_of(batch: Batch, rank: int, count: int) -> Part:
    """Return what process ``rank`` of ``count`` takes: every count-th example, or all of a smaller batch.

    A process without an example would have no loss to take part in the sum of the gradients with.
    """
    if len(batch) < count:
        return Part(batch, 1 / count, False)
    mine = batch.take(torch.arange(rank, len(batch), count, device=batch.y.device))
    return Part(mine, len(mine) / len(batch), True)


class _Computed(nn.Module):
    """The objective as the forward pass of a module, however often it calls the network itself.

    What is reduced is then what this one pass reaches: an objective may call the network twice, by another path, or
    not at all on one of the processes.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = (objective,)  # in a tuple: a module among them is not one of the network's

    def forward(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, int]:
        value, gradients = self._objective[0](self.model, Batch(x, y, index))
        return value, gradients


@dataclass(frozen=True)
class Team:
    """One process of several that train one network.

    Args:
        fabric: set up; its strategy decides how the processes share.
        sharded: whether it divides gradients and the optimiser's state.
    """

    fabric: Fabric
    sharded: bool

    @contextmanager
    def stepping(
        self, model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, numerics: Numerics
    ) -> Iterator[Callable[[Batch], tuple[Tensor, int]]]:
        """Give a function that makes a step on a batch and returns this process' summands of loss and gradients.

        Afterwards ``model`` holds the same values in all processes, and ``optimizer`` can go on.
        """
        rank, count = self.fabric.global_rank, self.fabric.world_size
        made = (
            sharded(self.fabric, partial(_Computed, objective=objective), model, optimizer)
            if self.sharded
            else nullcontext(self.fabric.setup(_Computed(model, objective), optimizer))
        )
        with made as (computed, inner):

            def step(batch: Batch) -> tuple[Tensor, int]:
                part = part_of(batch, rank, count)
                mine = part.batch
                with numerics.autocast(), SharedStatistics() if part.divided else nullcontext():
                    value, gradients = computed(numerics.place_inputs(mine.x), mine.y, mine.index)
                inner.zero_grad(set_to_none=True)
                # Fabric's strategies take the mean over the processes.
                self.fabric.backward(value * (part.weight * count))
                for own, given in zip(inner.param_groups, optimizer.param_groups, strict=True):
                    own["lr"] = given["lr"]
                inner.step()
                return value.detach() * part.weight, gradients if part.divided or rank == 0 else 0

            yield step

    def sum(self, *values: Tensor) -> list[Tensor]:
        """Return the sums of tensors of one shape over the processes."""
        total = torch.stack([value.double() for value in values])
        distributed.all_reduce(total)
        return list(total)

    def gather(self, rows: Tensor, mine: Tensor) -> Tensor:
        """Return ``rows`` (N, ...) with every row as the processes have it whose ``mine`` (N,) names it: their mean.

        A row that none of them names stays as it is here.
        """
        named = mine.reshape(-1, *[1] * (rows.dim() - 1))
        total, count = torch.where(named, rows, torch.zeros_like(rows)).float(), named.float()
        distributed.all_reduce(total)
        distributed.all_reduce(count)
        return torch.where(count > 0, (total / count.clamp(min=1)).to(rows.dtype), rows)

    def agree_on(self, value: _Value) -> _Value:
        """Return the first process' ``value``, which is not a tensor: that would come on the first one's device."""
        shared: _Value = self.fabric.broadcast(value)
        return shared

    def agree(self, tensor: Tensor) -> Tensor:
        """Return the first process' ``tensor``: a last bit in which they differ must not decide differently."""
        shared = tensor.contiguous()
        distributed.broadcast(shared, 0)
        return shared
