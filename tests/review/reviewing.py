"""Lists of suspects over small data, for the tests of the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from expunge.review.decisions import Decisions
from expunge.review.display import Display
from expunge.review.listing import load_data, read_summary, read_suspects
from expunge.review.page import ReviewPage, ReviewServer
from expunge.store.spreadsheet import csv_text

CLASSES = ("ant", "bee", "</script><b>cat")


def listed(folder: Path, n: int = 30, suspects: int = 12, known: int = 1) -> Path:
    """Write ``n`` pictures of 8 x 8 and a list of their first rows, the last of which were known; return the list."""
    draw = np.random.default_rng(0)
    labels = np.arange(n) % 3
    images = draw.integers(0, 255, (n, 8, 8), dtype=np.uint8)
    names = np.array([f"{row}.png" for row in range(n)])
    np.savez(folder / "data.npz", images=images, labels=labels, classes=np.array(CLASSES), names=names)
    rows: list[list[object]] = [
        ["index", "name", "is_label_issue", "score", "detector", "given_label", "suggested_label", "nearest"]
    ]
    for row in range(suspects):
        detector = "labels" if row < suspects - known else "labels+known"
        suggested = CLASSES[(row + 1) % 3]
        near = f"{n - 1} {n - 2}"
        rows.append([row, names[row], True, 1 - row / suspects, detector, CLASSES[row % 3], suggested, near])
    path = folder / "suspects.csv"
    path.write_text(csv_text(rows), encoding="utf-8")
    summary = {
        "settings": {"data": str(folder / "data.npz")},
        "reading": {"normalise": "data", "inputs": [], "tokenizer": None, "root": None},
        "n_examples": n,
    }
    path.with_suffix(".json").write_text(json.dumps(summary))
    return path


def server(path: Path) -> ReviewServer:
    """The server of the page of a list, on a free port."""
    data = load_data(read_summary(path))
    suspects = read_suspects(path, data)
    decisions = Decisions(path.with_suffix(".reviewed.csv"), suspects, data.classes)
    return ReviewServer(ReviewPage(suspects, Display(data), decisions, path.name))
