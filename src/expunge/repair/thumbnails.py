"""Small pictures of rows, for a page that needs no file beside it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.data.reader import Plan
from expunge.inputs.pictures import DecodedSource
from expunge.results.png import data_uri

_LARGEST = 96
"""Pixels of the longer side."""


def thumbnails(examples: Examples, positions: Tensor) -> list[str]:
    """Return PNG pictures of ``positions`` as data URIs; none where inputs are no images."""
    made = []
    for row in examples.index[positions.to(examples.device)].tolist():
        pixels = _pixels(examples, row)
        if pixels is None:
            return []
        if max(pixels.shape[1:]) > _LARGEST:
            scale = _LARGEST / max(pixels.shape[1:])
            small = F.interpolate(pixels[None].float(), scale_factor=scale, mode="bilinear", antialias=True)
            pixels = small[0].round().clamp(0, 255).to(torch.uint8)
        made.append(data_uri(pixels))
    return made


def _pixels(examples: Examples, row: int) -> Tensor | None:
    """Return uint8 (C, H, W) with one or three channels; ``None`` for what is no picture."""
    source = examples.source
    if isinstance(source, ImageSource):
        found = source.images[row].cpu()
    elif isinstance(source, DecodedSource):
        found = source.decoder(Plan([row]))[0]
    else:
        x = source.fetch(torch.tensor([row], device=examples.device), None)[0].cpu()
        if x.ndim != 3 or not x.is_floating_point():
            return None
        # Normalised in a way that nobody says: the darkest becomes black, the brightest white.
        low, high = x.min(), x.max()
        found = (255 * (x - low) / (high - low).clamp(min=1e-9)).round().to(torch.uint8)
    return found if len(found) in (1, 3) else None
