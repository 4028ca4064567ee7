"""What a model's layers and parameters will do to a repair, found without running the model."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from expunge.errors import InvalidInput
from expunge.inputs.findings import Finding, first_few, ranked
from expunge.models.head import find_head

SMALL_BATCH = 16
"""Examples below which the statistics of a batch are too noisy to normalise by."""


def check_layers(model: nn.Module, n_classes: int, batch_size: int, device: str = "cpu") -> list[Finding]:
    """Return what is found in the layers and parameters of ``model``, errors first.

    Args:
        model: as it was loaded.
        n_classes: classes of the data.
        batch_size: examples a step of the repair will have.
        device: where it will run.
    """
    found = [
        *_values(model),
        *_frozen(model),
        *_tied(model),
        *_normalisation(model, batch_size, device),
        *_dropout(model),
        *_head(model, n_classes),
    ]
    return ranked(found)


def check_lazy(model: nn.Module) -> list[Finding]:
    """Return the finding that some parameters have no shape yet: a model that must not be run."""
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if not lazy:
        return []
    return [
        Finding(
            "error",
            lazy[0],
            f"{len(lazy)} parameters have no shape yet: {first_few(lazy)}",
            "run one batch through the model in the factory, before returning it",
        )
    ]


def _values(model: nn.Module) -> list[Finding]:
    found = []
    bad = [
        name
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, torch.Tensor)
        and tensor.is_floating_point()
        and not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        found.append(
            Finding(
                "error",
                bad[0],
                f"{len(bad)} tensors hold NaN or inf: {first_few(bad)}",
                "start from a checkpoint saved before the training diverged",
            )
        )
    low = [
        name for name, tensor in model.named_parameters() if tensor.dtype in (torch.float16, torch.bfloat16)
    ]
    if low:
        kind = str(dict(model.named_parameters())[low[0]].dtype).removeprefix("torch.")
        found.append(
            Finding(
                "error",
                low[0],
                f"{len(low)} parameters are {kind}, too coarse for small steps: {first_few(low)}",
                "return model.float() from the factory; the checkpoint is written in the dtype it came in",
            )
        )
    return found


def _frozen(model: nn.Module) -> list[Finding]:
    parameters = dict(model.named_parameters())
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if not parameters:
        return [Finding("error", "model", "has no parameters", "give the architecture of the checkpoint")]
    if not frozen:
        return []
    every = len(frozen) == len(parameters)
    return [
        Finding(
            "error" if every else "warning",
            frozen[0],
            f"{'all' if every else len(frozen)} of {len(parameters)} parameters are frozen: {first_few(frozen)}; "
            "what they learned from bad examples stays",
            "set requires_grad to true in the factory, unless they were frozen in training too",
        )
    ]


def _tied(model: nn.Module) -> list[Finding]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [
        Finding(
            "note",
            group[0],
            f"is one parameter under {len(group)} names: {first_few(group)}; it changes in all of them",
        )
        for group in names.values()
        if len(group) > 1
    ]


def _normalisation(model: nn.Module, batch_size: int, device: str) -> list[Finding]:
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    found = []
    if norms and batch_size < SMALL_BATCH:
        names = list(norms)
        found.append(
            Finding(
                "error" if batch_size == 1 else "warning",
                names[0],
                f"{len(names)} batch norms ({first_few(names)}) take their statistics from batches of {batch_size}",
                f"raise the batch size to {SMALL_BATCH} or more",
            )
        )
    without = [name for name, module in norms.items() if not module.track_running_stats]
    if without:
        found.append(
            Finding(
                "warning",
                without[0],
                f"{len(without)} batch norms keep no running statistics ({first_few(without)}): a prediction "
                "depends on the other examples of its batch",
                "expect accuracies that change with the batch size",
            )
        )
    synchronised = [name for name, module in norms.items() if isinstance(module, nn.SyncBatchNorm)]
    if synchronised:
        found.append(
            Finding(
                "error" if device == "cpu" else "note",
                synchronised[0],
                f"{len(synchronised)} batch norms are synchronised between processes: {first_few(synchronised)}",
                "build the model with torch.nn.BatchNorm2d; the names in the checkpoint are the same",
            )
        )
    return found


def _dropout(model: nn.Module) -> list[Finding]:
    names = [
        name for name, module in model.named_modules() if isinstance(module, _DropoutNd) and module.p > 0
    ]
    if not names:
        return []
    return [
        Finding(
            "note",
            names[0],
            f"{len(names)} dropout layers stay on while the model is repaired, as in training",
        )
    ]


def _head(model: nn.Module, n_classes: int) -> list[Finding]:
    try:
        find_head(model, n_classes)
    except InvalidInput:
        return [
            Finding(
                "warning",
                "head",
                f"no linear layer has {n_classes} outputs, one for each class",
                "methods that edit the last layer will refuse; choose another, such as relearn or npo",
            )
        ]
    return []
