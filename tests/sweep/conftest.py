from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from expunge.sweep.plan import DataChoice


@pytest.fixture(scope="session")
def easy(tmp_path_factory: pytest.TempPathFactory) -> DataChoice:
    """Images of four classes that differ in their brightest quarter: learned in a few steps."""
    draw = np.random.default_rng(0)
    labels = np.arange(160) % 4
    images = draw.integers(0, 40, (160, 8, 8), dtype=np.uint8)
    for label in range(4):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[labels == label, row : row + 4, column : column + 4] += 200
    path = Path(tmp_path_factory.mktemp("data")) / "easy.npz"
    np.savez(path, images=images[:96], labels=labels[:96], test_images=images[96:], test_labels=labels[96:])
    return DataChoice(str(path))
