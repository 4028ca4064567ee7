"""Small pictures of rows, for a page that needs no file beside it."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor

from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.inputs.pictures import DecodedSource

_LARGEST = 96
"""Pixels of the longer side."""


def thumbnails(examples: Examples, positions: Tensor) -> list[str]:
    """Return PNG pictures of ``positions`` as data URIs; none where inputs are no images, or without pillow."""
    try:
        from PIL import Image
    except ImportError:
        return []
    rows, made = examples.index[positions.to(examples.device)].cpu(), []
    for row in rows.tolist():
        pixels = _pixels(examples, row)
        if pixels is None:
            return []
        picture = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
        picture.thumbnail((_LARGEST, _LARGEST))
        file = io.BytesIO()
        picture.save(file, "png")
        made.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    return made


def _pixels(examples: Examples, row: int) -> Tensor | None:
    """Return uint8 (C, H, W) with one or three channels; ``None`` for what is no picture."""
    source = examples.source
    if isinstance(source, ImageSource):
        found = source.images[row].cpu()
    elif isinstance(source, DecodedSource):
        found = source.decode(row)
    else:
        x = source.fetch(torch.tensor([row], device=examples.device), None)[0].cpu()
        if x.ndim != 3 or not x.is_floating_point():
            return None
        # Normalised in a way that nobody says: the darkest becomes black, the brightest white.
        low, high = x.min(), x.max()
        found = (255 * (x - low) / (high - low).clamp(min=1e-9)).round().to(torch.uint8)
    return found if len(found) in (1, 3) else None
