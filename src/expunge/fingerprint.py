"""Content hashes: the same settings and tensors give the same key in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def fingerprint(*parts: Any) -> str:
    """Return 32 hexadecimal digits that depend on every part's content.

    Tensors enter with dtype, shape and bytes; frozen dataclasses with class name and fields; mappings
    regardless of order; other values through their JSON form.

    Raises:
        TypeError: a part has no stable form.
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()[:32]


def _feed(digest: hashlib._Hash, part: Any) -> None:
    if isinstance(part, Tensor):
        data = part.detach().cpu().contiguous()
        digest.update(f"tensor {data.dtype} {tuple(data.shape)}".encode())
        # reshape before view: a 0-d tensor cannot be viewed as bytes; no copy, it may be larger than memory
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        digest.update(f"settings {type(part).__name__}".encode())
        _feed(digest, {field.name: getattr(part, field.name) for field in dataclasses.fields(part)})
    elif isinstance(part, Mapping):
        digest.update(f"mapping {len(part)}".encode())
        for key in sorted(part):
            _feed(digest, key)
            _feed(digest, part[key])
    elif isinstance(part, list | tuple):
        digest.update(f"sequence {len(part)}".encode())
        for item in part:
            _feed(digest, item)
    else:
        digest.update(json.dumps(part).encode() + b"\x1f")
