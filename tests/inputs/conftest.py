from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from expunge.inputs.training_data import TrainingData


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 8x8 colour images, four in each; the class shows in the brightest channel."""
    draw = np.random.default_rng(0)
    for channel, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(0, 60, (8, 8, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{name[0]}{number}.png")
    return tmp_path / "images"


@pytest.fixture
def named() -> TrainingData:
    """Six rows of three classes, with names and a column."""
    from expunge.data.joined import in_memory

    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    names = ("ant/1.png", "ant/2.png", "bee/1.png", "bee/3.png", "cat/4.png", "cat/deep/5.png")
    return TrainingData(
        in_memory(torch.randn(6, 4), labels, 3),
        ("ant", "bee", "cat"),
        names,
        {"is_bad": [False, True, False, False, False, True], "weight": [0.5] * 6},
    )


def network(classes: int = 3, inputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


@pytest.fixture
def net() -> Callable[..., nn.Module]:
    return network
