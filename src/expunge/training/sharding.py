"""A training whose gradients and optimiser state are divided among processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.distributed.device_mesh import DeviceMesh


@contextmanager
def sharded(
    fabric: Fabric,
    around: Callable[[nn.Module], nn.Module],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[Any, Any]]:
    """Give a sharded copy of ``around(model)`` and its optimiser; put values and state back at the end.

    Args:
        fabric: with a strategy that shards by :func:`shard`.
        around: makes the module that is called.
        model: its parameters, buffers and ...
        optimizer: ... the state of this one are read at the start and written at the end, in whole.

    Raises:
        InvalidInput: the optimiser has hooks, which know nothing of the copy.
    """
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise InvalidInput(
            "this method changes gradients or parameters between the steps, which does not go with "
            "strategy 'fsdp'; use 'ddp'"
        )
    held = copy.deepcopy(model)
    computed = fabric.setup_module(around(held))
    theirs = dict(held.named_parameters())
    partner = {parameter: theirs[name] for name, parameter in model.named_parameters()}
    make: Any = type(optimizer)
    inner = make(
        [
            {**group, "params": [partner[parameter] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
    )
    for parameter, other in partner.items():
        if parameter in optimizer.state:
            inner.state[other] = _cut(optimizer.state[parameter], other)
    yield computed, fabric.setup_optimizers(inner)
    with torch.no_grad():
        for parameter, other in partner.items():
            parameter.copy_(_whole(other))
        for mine, buffer in zip(model.buffers(), held.buffers(), strict=True):
            mine.copy_(buffer)
        for parameter, other in partner.items():
            if other in inner.state:
                optimizer.state[parameter] = {
                    name: _whole(value) for name, value in inner.state[other].items()
                }


def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Divide the parameters of ``module`` in place, each member of a container by itself, and return it.

    A container's members (blocks of a transformer, layers of a sequence) are gathered one at a time.
    """
    from torch.distributed.fsdp import fully_shard

    containers = (nn.ModuleList, nn.Sequential)
    for container in [part for part in module.modules() if isinstance(part, containers)]:
        for member in container:
            if not isinstance(member, containers) and any(True for _ in member.parameters()):
                fully_shard(member, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    return module


def _cut(state: dict[str, Any], like: Any) -> dict[str, Any]:
    """Divide the tensors of an optimiser's state as the parameter they belong to; a step counter stays."""
    from torch.distributed.tensor import distribute_tensor

    return {
        name: distribute_tensor(value, like.device_mesh, like.placements)
        if isinstance(value, Tensor) and value.shape == like.shape
        else value
        for name, value in state.items()
    }


def _whole(value: Any) -> Any:
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value
