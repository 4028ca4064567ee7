"""What is found in a user's model, and what its layers and parameters will do to a repair, without running it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from expunge.errors import InvalidInput, first_few
from expunge.models.head import find_head

Level = Literal["error", "warning", "note"]
"""An error stops the repair; a warning puts its result in doubt; a note is to be known."""

SMALL_BATCH = 16
"""Examples below which the statistics of a batch are too noisy to normalise by."""


@dataclass(frozen=True)
class Remark:
    """One thing found, with numbers, ``where`` it is (layer, file or part), and the remedy, if there is one."""

    level: Level
    where: str
    what: str
    remedy: str = ""


def ranked(findings: list[Remark]) -> list[Remark]:
    """Return errors first, then warnings, then notes; otherwise in their order."""
    return sorted(findings, key=lambda finding: get_args(Level).index(finding.level))


def check_layers(model: nn.Module, n_classes: int, batch_size: int, device: str = "cpu") -> list[Remark]:
    """Return what is found in a model as it was loaded, errors first; ``batch_size`` is that of the repair."""
    found = _values(model) + _frozen(model) + _tied(model) + _normalisation(model, batch_size, device)
    return ranked(found + _dropout(model) + _head(model, n_classes))


def check_lazy(model: nn.Module) -> list[Remark]:
    """Return the finding that some parameters have no shape yet: a model that must not be run."""
    return _about(
        "error",
        [name for name, parameter in model.named_parameters() if is_lazy(parameter)],
        "{n} parameters have no shape yet: {names}",
        "run one batch through the model in the factory, before returning it",
    )


def _about(level: Level, names: list[str], what: str, remedy: str = "") -> list[Remark]:
    """Return one finding about all ``names``, with their number {n} and the first {names}; none for no name."""
    if not names:
        return []
    return [Remark(level, names[0], what.format(n=len(names), names=first_few(names)), remedy)]


def _values(model: nn.Module) -> list[Remark]:
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    bad = [
        name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    low = [name for name, kind in kinds.items() if kind in (torch.float16, torch.bfloat16)]
    kind = str(kinds[low[0]]).removeprefix("torch.") if low else ""
    return [
        *_about(
            "error",
            bad,
            "{n} tensors hold NaN or inf: {names}",
            "start from a checkpoint saved before the training diverged",
        ),
        *_about(
            "error",
            low,
            f"{{n}} parameters are {kind}, too coarse for small steps: {{names}}",
            "return model.float() from the factory; the checkpoint is written in the dtype it came in",
        ),
    ]


def _frozen(model: nn.Module) -> list[Remark]:
    parameters = dict(model.named_parameters())
    if not parameters:
        return [Remark("error", "model", "has no parameters", "give the architecture of the checkpoint")]
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    every = len(frozen) == len(parameters)
    return _about(
        "error" if every else "warning",
        frozen,
        f"{'all' if every else '{n}'} of {len(parameters)} parameters are frozen: {{names}}; what they learned from "
        "bad examples stays",
        "set requires_grad to true in the factory, unless they were frozen in training too",
    )


def _tied(model: nn.Module) -> list[Remark]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    what = "is one parameter under {n} names: {names}; it changes in all of them"
    return [finding for group in names.values() if len(group) > 1 for finding in _about("note", group, what)]


def _normalisation(model: nn.Module, batch_size: int, device: str) -> list[Remark]:
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return [
        *_about(
            "error" if batch_size == 1 else "warning",
            list(norms) if batch_size < SMALL_BATCH else [],
            f"{{n}} batch norms ({{names}}) take their statistics from batches of {batch_size}",
            f"raise the batch size to {SMALL_BATCH} or more",
        ),
        *_about(
            "warning",
            [name for name, module in norms.items() if not module.track_running_stats],
            "{n} batch norms keep no running statistics ({names}): a prediction depends on the other examples of its "
            "batch",
            "expect accuracies that change with the batch size",
        ),
        *_about(
            "error" if device == "cpu" else "note",
            [name for name, module in norms.items() if isinstance(module, nn.SyncBatchNorm)],
            "{n} batch norms are synchronised between processes: {names}",
            "build the model with torch.nn.BatchNorm2d; the names in the checkpoint are the same",
        ),
    ]


def _dropout(model: nn.Module) -> list[Remark]:
    names = [name for name, part in model.named_modules() if isinstance(part, _DropoutNd) and part.p > 0]
    return _about("note", names, "{n} dropout layers stay on while the model is repaired, as in training")


def _head(model: nn.Module, n_classes: int) -> list[Remark]:
    try:
        find_head(model, n_classes)
    except InvalidInput:
        what = f"no linear layer has {n_classes} outputs, one for each class"
        remedy = "methods that edit the last layer will refuse; choose another, such as relearn or npo"
        return [Remark("warning", "head", what, remedy)]
    return []
