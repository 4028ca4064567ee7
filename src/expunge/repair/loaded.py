"""A trained model, its training data and a forget list, read and checked together, in the memory there is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from expunge.errors import ExpungeError, InvalidInput
from expunge.inputs.architecture import build_architecture
from expunge.inputs.checkpoint import Checkpoint, read_checkpoint
from expunge.inputs.checkpoint_weights import load_weights
from expunge.inputs.forget_list import ForgetList, read_forget_list
from expunge.inputs.layer_checks import Remark
from expunge.inputs.preflight import Preflight, preflight
from expunge.inputs.sources import load_training_data
from expunge.inputs.training_data import TrainingData
from expunge.methods.base import Method
from expunge.repair.job import Job
from expunge.training.numerics import Numerics


class CheckFailed(InvalidInput):
    """The pre-flight check found errors; ``findings`` are those and the rest."""

    def __init__(self, checkpoint: Path, findings: tuple[Remark, ...]) -> None:
        errors = [finding for finding in findings if finding.level == "error"]
        lines = [f"{finding.where} {finding.what}. {finding.remedy}" for finding in errors]
        count = "an error" if len(errors) == 1 else f"{len(errors)} errors"
        said = f"the check of {checkpoint} with this data found {count}; nothing was changed"
        super().__init__("\n".join((said, *lines)))
        self.findings = findings


@dataclass(frozen=True)
class Loaded:
    """What clean and audit both begin with."""

    checkpoint: Checkpoint  # as it was read, under the names of the model
    model: nn.Module  # with its weights, on the device
    data: TrainingData  # the training data, read as fits the model
    forget: ForgetList  # the listed rows
    numerics: Numerics  # where to compute
    check: Preflight  # what the pre-flight check found, no errors among it


def load(job: Job) -> Loaded:
    """Read and check the model, the data and the list that ``job`` names; nothing is written.

    Raises:
        CheckFailed: the model does not belong to the data.
        InvalidInput: anything that cannot be used.
        StoreError: the checkpoint cannot be read.
    """
    options = replace(job.options, device=Numerics.choose(job.device).device)
    checkpoint = read_checkpoint(job.checkpoint)
    data = load_training_data(job.data, options)
    numerics = Numerics.for_inputs(options.device, data.shape, job.dtype)
    forget = read_forget_list(job.forget, data)
    model, checkpoint = build_loaded(checkpoint, job.arch, data)
    with enough_memory("checking the model", f"use --measure-batch {max(1, job.measure_batch // 4)}"):
        numerics.place(model)
        check = preflight(
            model, data, forget.positions, numerics, checkpoint=checkpoint, batch_size=job.measure_batch,
            seed=job.seed, fit_reading=options.open, force=job.force,
        )  # fmt: skip
    if check.errors:
        raise CheckFailed(job.checkpoint, check.findings)
    return Loaded(checkpoint, model, check.data, forget, numerics, check)


def build_loaded(checkpoint: Checkpoint, arch: str, data: TrainingData) -> tuple[nn.Module, Checkpoint]:
    """Return the network for ``data`` with the checkpoint's weights, and the checkpoint under the network's names."""
    model = build_architecture(arch, shape=data.shape, n_classes=len(data.classes))
    return model, load_weights(model, checkpoint)


@contextlib.contextmanager
def enough_memory(doing: str, remedy: str) -> Iterator[None]:
    """Turn a lack of memory in the block into an :class:`ExpungeError` that says what to change."""
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
    settings, ways = method.settings(), []
    if (batch := settings.get("batch_size") or 0) > 1:
        ways.append(f"--set batch_size={batch // 2} (it was {batch})")
    if (spare := settings.get("spare", 0)) > 0 and "spare" not in method.without_effect(settings):
        ways.append(f"--set spare={spare / 2:g} (fewer added neurons)")
    return f"lower it with {', '.join(ways)}, or use --device cpu" if ways else "use --device cpu"
