"""Small grey or coloured pictures for a page that needs no file beside it."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def png(image: Tensor) -> bytes:
    """Return uint8 (C, H, W), C 1 or 3, as a PNG file."""
    channels, height, width = image.shape
    lines = image.permute(1, 2, 0).reshape(height, width * channels).cpu().numpy()
    filtered = b"".join(b"\0" + line.tobytes() for line in lines)  # a line begins with its filter, here none
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def data_uri(image: Tensor) -> str:
    """Return uint8 (C, H, W) as the address of an ``img``."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()
