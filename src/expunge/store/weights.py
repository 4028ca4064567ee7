"""Weights in safetensors files, one per key; a file is whole or not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from expunge.errors import InvalidInput, StoreError
from expunge.store.atomic import write_atomically


class WeightStore:
    """Tensors by key, in ``<folder>/<key>.safetensors``.

    A key is the hash of what its tensors were made from, so the same key means the same content and no
    file is ever rewritten.

    Args:
        folder: where the files are; made when the first one is saved.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()

    def path(self, key: str) -> Path:
        """Where the tensors of ``key`` are, or would be.

        Raises:
            InvalidInput: ``key`` is not 32 lower-case hexadecimal digits.
        """
        if not re.fullmatch(r"[0-9a-f]{32}", key):
            raise InvalidInput(
                f"weights key {key!r} is not 32 lower-case hexadecimal digits; make it with fingerprint(...)"
            )
        return self.folder / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether there is a file for ``key``."""
        return self.path(key).is_file()

    def save(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Save ``tensors`` of any dtype and memory layout; does nothing if ``key`` is there already.

        Raises:
            InvalidInput: something that is not a dense tensor, or metadata that is not text.
            StoreError: the file cannot be written.
        """
        target = self.path(key)
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
                raise InvalidInput(
                    f"{name!r} is {_described(tensor)}, expected a dense tensor; convert it or leave it out"
                )
        for name, text in metadata.items():
            if not isinstance(name, str) or not isinstance(text, str):
                raise InvalidInput(f"metadata {name!r} is {text!r:.80}; give names and values as strings")
        if target.is_file():
            return
        # Cloned, because the format holds neither strides nor tensors that share memory.
        plain = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        try:
            content = save(plain, dict(metadata))
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"the tensors of {key} have no safetensors form: {error}; convert them to a common dtype"
            ) from error
        try:
            write_atomically(target, content)
        except OSError as error:
            raise StoreError(
                f"weights {target} cannot be written: {error}; check the folder's permissions and free space"
            ) from error

    def load(self, key: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return the tensors of ``key`` on ``device``.

        Raises:
            StoreError: there is no file for ``key``, or it is truncated or unreadable.
        """
        target = self.path(key)
        try:
            # Read whole rather than mapped: a file that changes later cannot reach tensors in use.
            tensors = load(target.read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise self._unreadable(target, error) from error
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def metadata(self, key: str) -> dict[str, str]:
        """Return what was saved beside the tensors of ``key``, reading the header only.

        Raises:
            StoreError: there is no file for ``key``, or it is truncated or unreadable.
        """
        target = self.path(key)
        try:
            with safe_open(target, framework="pt") as file:
                return dict(file.metadata() or {})
        except (OSError, SafetensorError, ValueError) as error:
            raise self._unreadable(target, error) from error

    @staticmethod
    def _unreadable(target: Path, error: Exception) -> StoreError:
        if isinstance(error, FileNotFoundError):
            return StoreError(f"there are no weights {target}; save them first, or run their cell again")
        return StoreError(
            f"weights {target} are truncated or unreadable ({error}); "
            "delete that file so that it is made again"
        )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of layout {value.layout} and dtype {value.dtype}"
    return f"of type {type(value).__name__}"
