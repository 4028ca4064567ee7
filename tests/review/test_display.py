from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from reviewing import listed

from expunge.data.joined import in_memory
from expunge.inputs.training_data import TrainingData
from expunge.results.png import png
from expunge.review.display import Display
from expunge.review.listing import load_data, read_summary


def decoded(content: bytes) -> np.ndarray:
    """A PNG file without filters, by the letter of the format."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    channels = {0: 1, 2: 3}[content[25]]
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4])
    lines = np.frombuffer(zlib.decompress(content[start : start + length]), np.uint8)
    lines = lines.reshape(height, width * channels + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels)


def test_a_picture_is_shown_as_it_was_before_it_was_normalised(tmp_path: Path) -> None:
    path = listed(tmp_path)
    display = Display(load_data(read_summary(path)))
    assert display.pictures
    stored = np.load(tmp_path / "data.npz")["images"]
    for row in (0, 17):
        assert np.array_equal(decoded(png(display.picture(row)))[:, :, 0], stored[row])


def test_colours_keep_their_order() -> None:
    image = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    assert np.array_equal(decoded(png(image)), image.permute(1, 2, 0).numpy())


def test_numbers_and_tokens() -> None:
    labels = torch.tensor([0, 1])
    table = TrainingData(in_memory(torch.tensor([[1.5, 2.0], [3.0, 4.0]]), labels, 2), ("a", "b"))
    assert not Display(table).pictures
    assert Display(table, ("age", "pay")).text(1) == "age: 3\npay: 4"
    tokens = TrainingData(in_memory(torch.tensor([[5, 6, 0], [7, 0, 0]]), labels, 2), ("a", "b"))
    assert Display(tokens).text(0) == "5 6 0"
