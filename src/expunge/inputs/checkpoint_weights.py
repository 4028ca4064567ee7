"""A checkpoint's tensors put into the network they belong to, name by name."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from expunge.errors import InvalidInput, first_few, near_miss
from expunge.inputs.checkpoint import Checkpoint
from expunge.optional import load_extra


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """Put the tensors of ``checkpoint`` into ``model``, in place; every name and shape must fit.

    Three differences are bridged. A prefix is taken off where the names then fit (``DataParallel`` stores
    ``module.fc.weight``, Lightning ``model.fc.weight``); what lies outside it, such as the counter of an average of
    models, is written back as it was. Layers that ``transformers`` stores under other names than its modules have are
    found. A tied parameter may be stored under one of its names, and a stored buffer that the model no longer saves is
    left out here and written back as it was. The checkpoint that is returned has the model's names, as
    ``write_checkpoint`` expects them.

    Raises:
        InvalidInput: names that are missing or too many, shapes or a number of classes that differ.
    """
    checkpoint = _under_own_names(model, _fitting_prefix(model, checkpoint))
    own: dict[str, Tensor] = {
        k: value for k, value in model.state_dict().items() if isinstance(value, Tensor)
    }
    state = {name: tensor for name, tensor in checkpoint.state.items() if name not in checkpoint.extra}
    buffers = dict(model.named_buffers())
    tied = {own[name].data_ptr() for name in state if name in own and own[name].numel()}
    missing = [name for name, tensor in own.items() if name not in state and tensor.data_ptr() not in tied]
    unknown = [
        name
        for name, tensor in state.items()
        if name not in own and not (name in buffers and buffers[name].shape == tensor.shape)
    ]
    if missing or unknown:
        unknown += checkpoint.extra if missing else ()
        raise InvalidInput(_names(checkpoint, missing, unknown))
    unequal = [name for name, tensor in state.items() if name in own and own[name].shape != tensor.shape]
    if unequal:
        raise InvalidInput(_shapes(checkpoint, own, unequal))
    with torch.no_grad():
        for name, tensor in state.items():
            if name in own:
                own[name].copy_(tensor)
    return checkpoint


def under_names_of(model: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """Return ``checkpoint`` with the names that its tensors have in ``model``, as far as they can be found.

    Beside what :func:`load_weights` bridges, a part of the network may be stored alone: ``embeddings.weight`` of an
    encoder that the model calls ``bert``.
    """
    found = _under_own_names(model, _fitting_prefix(model, checkpoint))
    own = set(model.state_dict())
    if own & set(found.state):
        return found
    for front in sorted({name.partition(".")[0] for name in own}):
        longer = found.renamed({name: f"{front}.{name}" for name in found.state})
        if own & set(longer.state):
            return longer
    return found


def state_to_write(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of ``model`` under the names ``checkpoint`` stores."""
    return {name: tensor for name, tensor in model.state_dict().items() if name in checkpoint.state}


def _fitting_prefix(model: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    own = set(model.state_dict())
    if own & set(checkpoint.state):
        return checkpoint
    fitting: Counter[str] = Counter()
    for name in checkpoint.state:
        parts = name.split(".")
        rests = {".".join(parts[at:]): ".".join(parts[:at]) + "." for at in range(1, len(parts))}
        fitting.update(prefix for rest, prefix in rests.items() if rest in own)
    if not fitting:
        return checkpoint
    most = max(fitting.values())
    best = sorted(prefix for prefix, count in fitting.items() if count == most)
    if len(best) > 1:
        raise InvalidInput(
            f"{checkpoint.path} holds {len(best)} sets of weights that fit the architecture, under {first_few(best)}; "
            "save the one that is used alone"
        )
    return checkpoint.without(best[0])


def _under_own_names(model: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    own = set(model.state_dict())
    if set(checkpoint.state) <= own:
        return checkpoint
    published = published_names(model)
    new = {name: published[name] for name in checkpoint.state if name in published and name not in own}
    return checkpoint.renamed(new)


def _names(checkpoint: Checkpoint, missing: list[str], unknown: list[str]) -> str:
    parts = [f"{checkpoint.path} does not fit the architecture"]
    if missing:
        hint = near_miss(missing[0], unknown)
        parts.append(f"{len(missing)} tensors of the model are not in the file: {first_few(missing)}{hint}")
    if unknown:
        hint = near_miss(unknown[0], missing)
        parts.append(f"{len(unknown)} in the file are not in the model: {first_few(unknown)}{hint}")
    if missing and unknown and _ends(missing) == _ends(unknown):
        remedy = "the same layers bear other prefixes: give a factory that names them as the file does"
    else:
        remedy = "give the architecture the checkpoint was trained with, with the same settings"
    return "; ".join([*parts, remedy])


def _ends(names: list[str]) -> set[str]:
    """Return the last two parts of each name."""
    return {"".join(name.split(".")[-2:]) for name in names}


def _shapes(checkpoint: Checkpoint, own: dict[str, Tensor], unequal: list[str]) -> str:
    state = checkpoint.state
    rows_alone = all(
        own[name].ndim == state[name].ndim > 0 and own[name].shape[1:] == state[name].shape[1:]
        for name in unequal
    )
    if rows_alone and len({name.rpartition(".")[0] for name in unequal}) == 1:
        name = unequal[0]
        return (
            f"{checkpoint.path} has {state[name].shape[0]} classes, but the architecture has "
            f"{own[name].shape[0]} ({first_few(unequal)}); give the architecture the number of classes the "
            "checkpoint was trained with, and data with the same classes"
        )
    differences = [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(own[name].shape)} in the model"
        for name in unequal
    ]
    return (
        f"{checkpoint.path} does not fit the architecture: {len(unequal)} shapes differ: {first_few(differences)}; "
        "give the architecture the settings the checkpoint was trained with (width, depth, image size, channels)"
    )


def published_names(model: nn.Module) -> dict[str, str]:
    """Return stored name -> name in the module, for a model of ``transformers``; empty for any other.

    Since version 5 the library renames layers when it reads or writes a file. It is asked for the names by having it
    save one numbered value for each tensor. The result is empty too where it also splits or joins tensors.
    """
    if not (hasattr(model, "save_pretrained") and hasattr(model, "config")):
        return {}
    saver: Any = model
    own = list(model.state_dict())
    # The library drops tensors that are equal in storage, so each has its own.
    marks = {name: torch.tensor([number], dtype=torch.float64) for number, name in enumerate(own)}
    with tempfile.TemporaryDirectory() as folder, _unchanged(model), _quiet():
        try:
            saver.save_pretrained(folder, state_dict=marks)
            stored = load_file(Path(folder, "model.safetensors"))
        # What the library does with a model of its own is not ours to foresee; without names the
        # checkpoint is compared with the module's.
        except Exception:
            return {}
    if any(tensor.shape != (1,) for tensor in stored.values()):
        return {}
    return {name: own[int(tensor.item())] for name, tensor in stored.items()}


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Saving writes the dtype and the class into the configuration."""
    before = dict(vars(model.config))
    try:
        yield
    finally:
        vars(model.config).clear()
        vars(model.config).update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    logging = load_extra("transformers.utils.logging", "transformers", "text", "this model")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
