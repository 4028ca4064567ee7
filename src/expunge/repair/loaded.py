"""A trained model, its training data and a forget list, read and checked together, in the memory there is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
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
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.methods.base import Method
from expunge.training.numerics import Numerics


class CheckFailed(InvalidInput):
    """The pre-flight check found errors; ``findings`` are those and the rest."""

    def __init__(self, checkpoint: Path, findings: tuple[Remark, ...]) -> None:
        errors = [finding for finding in findings if finding.level == "error"]
        lines = [f"{finding.where} {finding.what}. {finding.remedy}" for finding in errors]
        count = "an error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__(
            "\n".join(
                (f"the check of {checkpoint} with this data found {count}; nothing was changed", *lines)
            )
        )
        self.findings = findings


@dataclass(frozen=True)
class Loaded:
    """What clean and audit both begin with.

    Args:
        checkpoint: as it was read, under the names of the model.
        model: with its weights, on the device.
        data: the training data, read as fits the model.
        forget: the listed rows.
        numerics: where to compute.
        check: what the pre-flight check found, no errors among it.
    """

    checkpoint: Checkpoint
    model: nn.Module
    data: TrainingData
    forget: ForgetList
    numerics: Numerics
    check: Preflight


def load(
    checkpoint: Path,
    arch: str,
    data: str,
    forget: str,
    options: DataOptions,
    *,
    measure_batch: int = 256,
    seed: int = 0,
    force: bool = False,
    dtype: str | None = None,
) -> Loaded:
    """Read and check what is named; nothing is written.

    Args:
        checkpoint: file of the trained model.
        arch: the network, see ``build_architecture``.
        data: what it was trained on, see ``load_training_data``.
        forget: the listed rows, see ``read_forget_list``.
        options: how data is read, and onto which device.
        measure_batch: rows a forward pass reads.
        seed: of the rows that the check draws.
        force: a model that scores badly on its data is a warning, not an error.
        dtype: precision; by default what the inputs need.

    Raises:
        CheckFailed: the model does not belong to the data.
        InvalidInput: anything that cannot be used.
        StoreError: the checkpoint cannot be read.
    """
    read = read_checkpoint(checkpoint)
    training = load_training_data(data, options)
    numerics = Numerics.for_inputs(options.device, training.shape, dtype)
    listed = read_forget_list(forget, training)
    model, read = build_loaded(read, arch, training)
    with enough_memory("checking the model", f"use --measure-batch {max(1, measure_batch // 4)}"):
        numerics.place(model)
        check = preflight(
            model, training, listed.positions, numerics,
            checkpoint=read, batch_size=measure_batch, seed=seed, fit_reading=options.open, force=force,
        )  # fmt: skip
    if check.errors:
        raise CheckFailed(checkpoint, check.findings)
    return Loaded(read, model, check.data, listed, numerics, check)


def build_loaded(checkpoint: Checkpoint, arch: str, data: TrainingData) -> tuple[nn.Module, Checkpoint]:
    """Return the network for ``data`` with the checkpoint's weights, and the checkpoint under the network's names.

    Raises:
        InvalidInput: an architecture that cannot be built, or does not fit the checkpoint.
    """
    model = build_architecture(arch, shape=data.shape, n_classes=len(data.classes))
    return model, load_weights(model, checkpoint)


@contextlib.contextmanager
def enough_memory(doing: str, remedy: str) -> Iterator[None]:
    """Say what to change where the block runs out of memory.

    Raises:
        ExpungeError: it did; ``doing`` and ``remedy`` are in the message.
    """
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
    batch = getattr(method, "batch_size", None)
    ways = []
    if isinstance(batch, int) and batch > 1:
        ways.append(f"--set batch_size={batch // 2} (it was {batch})")
    spare = getattr(method, "spare", None)
    if (
        isinstance(spare, float | int)
        and spare > 0
        and "spare" not in method.without_effect(method.settings())
    ):
        ways.append(f"--set spare={spare / 2:g} (fewer added neurons)")
    ways.append("--device cpu")
    return f"lower it with {', '.join(ways[:-1])}, or use {ways[-1]}" if len(ways) > 1 else f"use {ways[0]}"
