"""A model's checkpoint file: read without unpickling objects, written back in the form it came in."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from expunge.data.location import check_memory, check_regular
from expunge.errors import InvalidInput, StoreError, first_few
from expunge.store.atomic import write_output

_ENTRIES = ("state_dict", "model_state_dict", "model")
_COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module, wherever that stands."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the file they came in.

    Args:
        path: the file.
        container: "safetensors" or "torch".
        state: name -> tensor on the CPU.
        names: name -> name in the file; the same but for prefixes and renamed layers.
        entry: keys under which a torch file holds its state dict, the outermost first; empty where the file is one.
        extra: names in the file of tensors that are no part of the model, such as those of an average's counter.
        metadata: text that a safetensors file carries.
        content: what a torch file holds, the state dict included.
    """

    path: Path
    container: Literal["safetensors", "torch"]
    state: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)
    entry: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    content: Any = field(default=None, repr=False)

    @property
    def carried(self) -> list[str]:
        """Other entries of the file that hold tensors: they are written back as they were."""
        found = [name for name in self.extra if self.state[name].numel() > 1]
        level = self.content
        for key in self.entry:
            found += [str(name) for name, value in level.items() if name != key and _tensors(value)]
            level = level[key]
        return found

    def without(self, prefix: str) -> Checkpoint:
        """Return the checkpoint with ``prefix`` taken off the names that have it; the others are extra."""
        extra = tuple(name for name in self.state if not name.startswith(prefix))
        return replace(
            self.renamed({name: name.removeprefix(prefix) for name in self.state if name not in extra}),
            extra=extra,
        )

    def renamed(self, new: Mapping[str, str]) -> Checkpoint:
        """Return the checkpoint with other names, name -> new name; the names in the file stay."""
        pairs = [(name, new.get(name, name)) for name in self.state]
        return replace(
            self,
            state={after: self.state[before] for before, after in pairs},
            names={after: self.names.get(before, before) for before, after in pairs},
        )


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a safetensors file, or a torch file that holds tensors and plain values only.

    A torch file is a state dict, or a dictionary with one under "state_dict", "model_state_dict" or "model", else under
    the only key that holds one, however deep. What ``torch.compile`` puts before names is taken off; other prefixes are
    by ``load_weights``, which knows the model. Nothing is ever unpickled but tensors and plain values.

    Raises:
        StoreError: the file is missing, truncated, unreadable, or would have to unpickle objects.
        InvalidInput: the file holds no state dict.
    """
    path = Path(path).expanduser()
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise StoreError(_not_there(path, error)) from error
    safe = head[8:9] == b"{" or path.suffix == ".safetensors"
    checkpoint = _read_safetensors(path) if safe else _read_torch(path)
    if not checkpoint.state:
        raise InvalidInput(f"{path} holds no tensors; expected the state dict of a model")
    odd = next((name for name, tensor in checkpoint.state.items() if not _is_plain(tensor)), None)
    if odd is not None:
        raise InvalidInput(
            f"{path}: {odd} is a sparse, meta, quantized or complex tensor, expected dense ones of real numbers; save "
            "the model in float32"
        )
    return checkpoint.renamed({name: name.replace(_COMPILED, "") for name in checkpoint.state})


def write_checkpoint(checkpoint: Checkpoint, state: Mapping[str, Tensor], out: Path | str) -> None:
    """Write ``state`` in the form of ``checkpoint``: names, shapes, dtypes, container, metadata.

    Other entries of a torch file (see :attr:`Checkpoint.carried`) are written back unchanged, and so is a stored tensor
    that ``state`` lacks, such as a buffer that newer versions no longer save.

    Raises:
        InvalidInput: ``out`` is the file that was read, or there already; a name too many, another shape,
            or a value that is not finite in the stored dtype.
        StoreError: the file cannot be written.
    """
    out, source = Path(out).expanduser(), checkpoint.path
    if out.resolve() == source.resolve() or (out.exists() and source.exists() and out.samefile(source)):
        raise InvalidInput(
            f"{out} is the checkpoint that was read; it is never overwritten, choose another name"
        )
    if out.exists():
        raise InvalidInput(f"{out} is there already; choose another name, or move it away")
    unknown = [name for name in state if name not in checkpoint.state]
    if unknown:
        raise InvalidInput(
            f"{first_few(unknown)}: not in {checkpoint.path}; give the tensors under the names they were read by"
        )
    stored = {
        checkpoint.names.get(name, name): _as_stored(name, state.get(name, old), old)
        for name, old in checkpoint.state.items()
    }
    if checkpoint.container == "safetensors":
        content = save_safetensors(stored, dict(checkpoint.metadata) or None)
    else:
        content = _torch_bytes(checkpoint, stored)
    write_output(out, content, remedy="check the folder's permissions and free space")


def _not_there(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such file; expected a checkpoint (.safetensors, .pt, .pth, .bin)"
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth", ".bin"))
        found = f"it holds {first_few(inside)}" if inside else "it holds none"
        return f"{path} is a folder; expected a checkpoint file; {found}"
    return f"{path} cannot be read: {error}; check its permissions"


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        # Read whole rather than mapped: what happens to the file later cannot reach the tensors.
        state = load_safetensors(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise StoreError(
            f"{path} is no readable safetensors file: {error}; it is truncated or of another kind, copy it again"
        ) from error
    return Checkpoint(path, "safetensors", state, metadata=metadata)


def _read_torch(path: Path) -> Checkpoint:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the refusal below says what torch would
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if "Unsupported" in str(error) or "TorchScript" in str(error) or "Weights only" in str(error):
            raise StoreError(_refusal(path)) from error
        raise StoreError(_unreadable(path, error)) from error
    # What the unpickler meets in a file of another kind can make it fail in any way.
    except Exception as error:
        raise StoreError(_unreadable(path, error)) from error
    found = _states(content)
    if len(found) > 1:
        raise InvalidInput(
            f"{path} holds {len(found)} state dicts ({first_few(['.'.join(entry) for entry in found])}); save the one "
            "of the model alone"
        )
    for entry, state in found.items():
        return Checkpoint(path, "torch", dict(state), entry=entry, content=content)
    what = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        what = f"a dictionary of {first_few([repr(name) for name in content]) or 'nothing'}"
    raise InvalidInput(
        f"{path} holds {what}, expected a state dict (name -> tensor), or a dictionary with one; "
        "write it with torch.save(model.state_dict(), 'weights.pt')"
    )


def _states(content: Any, depth: int = 3) -> dict[tuple[str, ...], Mapping[str, Tensor]]:
    """State dicts in ``content`` by the keys that lead to them; one under a usual key goes before others."""
    if not isinstance(content, Mapping):
        return {}
    if _is_state(content):
        return {(): content}
    found: dict[tuple[str, ...], Mapping[str, Tensor]] = {}
    for key, value in content.items() if depth else ():
        if not isinstance(key, str) or key.startswith("optim"):
            continue  # what an optimiser keeps are tensors by name too
        inner = {(key, *entry): state for entry, state in _states(value, depth - 1).items()}
        if key in _ENTRIES and len(inner) == 1:
            return inner
        found |= inner
    return found


def _check_archive(path: Path) -> None:
    """Compare the checksums of the file's parts, which torch does not do, and what they would unpack to."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            check_memory(sum(part.file_size for part in archive.infolist()), path.stat().st_size)
            damaged = archive.testzip()
    # The archive's own table may be damaged in any way.
    except Exception as error:
        raise StoreError(_unreadable(path, error)) from error
    if damaged is not None:
        raise StoreError(f"{path} is damaged: the checksum of {damaged} is another; copy it again")


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
    return dense and not tensor.is_complex()


def _is_state(value: Mapping[Any, Any]) -> bool:
    named = all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    return named and any(tensor.is_floating_point() for tensor in value.values())


def _tensors(value: Any) -> bool:
    left, seen = [value], set()
    while left:  # nesting may be deeper than calls, and lists may hold themselves
        item = left.pop()
        if isinstance(item, Tensor):
            return True
        if id(item) in seen:
            continue
        seen.add(id(item))
        left += item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
    return False


def _refusal(path: Path) -> str:
    return (
        f"{path} holds pickled objects, which can run code when they are read, so it is refused; expected "
        "tensors only. If you trust the file, convert it where the model's code is:\n"
        "    import torch\n"
        f"    found = torch.load({path.name!r}, weights_only=False, map_location='cpu')  # runs its code\n"
        "    torch.save(getattr(found, 'state_dict', lambda: found['state_dict'])(), 'weights.pt')"
    )


def _unreadable(path: Path, error: Exception) -> str:
    said = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
    empty = "an empty file" if path.stat().st_size == 0 else "truncated"
    packed = "" if zipfile.is_zipfile(path) else f"{empty} or "
    return f"{path} cannot be read: it is {packed}no torch checkpoint ({said}); copy it again"


def _as_stored(name: str, new: Tensor, old: Tensor) -> Tensor:
    if new.shape != old.shape:
        raise InvalidInput(f"{name} has shape {tuple(new.shape)}, but {tuple(old.shape)} was read")
    # Cloned, because neither format is to hold strides of a memory format, or views of a larger tensor.
    tensor = new.detach().cpu().to(old.dtype).clone(memory_format=torch.contiguous_format)
    if _finite(old) and not _finite(tensor):
        raise InvalidInput(
            f"{name} holds values that are not finite in the stored {old.dtype}; convert the checkpoint to "
            "float32 first"
        )
    return nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.float()).all())


def _torch_bytes(checkpoint: Checkpoint, stored: Mapping[str, Tensor]) -> bytes:
    levels = [checkpoint.content]
    for key in checkpoint.entry:
        levels.append(levels[-1][key])
    former = levels[-1]
    state: dict[str, Tensor] = OrderedDict(stored) if isinstance(former, OrderedDict) else dict(stored)
    if isinstance(former, OrderedDict):
        # Modules read from it which version of their layout the names follow.
        vars(state).update(vars(former))
    content: Any = state
    for level, key in zip(levels[-2::-1], reversed(checkpoint.entry), strict=True):
        outer = type(level)(level)
        outer[key] = content
        content = outer
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
