"""What it costs to read data: a slow data set of one's own, and more images than fit in memory.

Usage: EXPUNGE_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/reading.py slow|large [--seed 0] [--work FOLDER]
       [--out FILE.jsonl] [--quick]

slow: a ConvNet on 2,000 images of clothes, 80 with a patch and 20 of them known, is repaired by expunge.unlearn and
judged, from a data set that takes 5 ms a row; once for each cache and number of workers. A line tells the reads of a
row, the seconds, the share of them in which rows are waited for, and whether the weights are the same.

large: 100,000 JPEG files of 96 x 96 pixels are written, 5,000 of them into the folder of another class; a small network
is trained on them, read at 64 x 64, and "expunge find" looks for the wrong ones. Training and command are processes
that may take 2 GiB of memory (RLIMIT_DATA, which does not count files that are mapped). A line tells seconds, the
most memory that was taken, and what was found.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import expunge
from expunge.data.cache import free_memory
from expunge.data.reader import Reader
from expunge.fingerprint import fingerprint
from expunge.inputs.architecture import build_architecture
from expunge.inputs.sources import load_training_data
from expunge.inputs.training_data import DataOptions
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

HERE = Path(__file__).resolve()
LIMIT = 2 * 2**30
SIDE, READ_SIDE, CLASSES = 96, 64, 10


class Small(nn.Sequential):
    """Two strided convolutions: reading is to be the larger part."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 5, stride=4, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * 16, CLASSES),
        )  # fmt: skip


# --- a slow data set ------------------------------------------------------------------------------------------


class Waiting:
    """Counts the seconds in which this process waits for rows, here or from a worker."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ahead = Reader.ahead

    def __enter__(self) -> Waiting:
        def timed(reader: Reader, *given: Any) -> Iterator[Any]:
            rows = self._ahead(reader, *given)
            while True:
                began = time.perf_counter()
                found = next(rows, None)
                self.seconds += time.perf_counter() - began
                if found is None:
                    return
                yield found

        Reader.ahead = timed  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *error: object) -> None:
        Reader.ahead = self._ahead  # type: ignore[method-assign]


def slow(given: argparse.Namespace, work: Path) -> None:
    """Repair from the slow data set in every way."""
    from journeys import Slow, patch

    journey = patch(given, work)
    model, _ = journey.trained(journey.train.examples)
    held = journey.held_out(journey.validation)
    same: str | None = None
    for cache, workers in (("none", 0), ("none", 2), ("auto", 0), ("auto", 2)):
        train = Slow(journey.train.examples)
        began = time.perf_counter()
        with Waiting() as waiting:
            result = expunge.unlearn(
                model, train, forget=journey.listed, recipe=journey.recipe, validation=held, seed=given.seed,
                workers=workers, cache=cache,
            )  # fmt: skip
            grade = result.verdict().grade
        seconds = time.perf_counter() - began
        found = fingerprint(dict(result.model.state_dict()))
        same = same or found
        say(
            given, part="slow", rows=len(train), milliseconds=1000 * train.wait, cache=cache, workers=workers,
            reads_of_a_row=train.reads_of_a_row, seconds=round(seconds, 1),
            share_of_waiting=round(waiting.seconds / seconds, 2), same_weights=found == same, verdict=grade,
        )  # fmt: skip


# --- more than fits in memory ---------------------------------------------------------------------------------


def write_images(folder: Path, count: int, seed: int) -> None:
    """Write JPEG files into folders of classes, one in twenty into another one; the name begins with the true class."""
    if (folder / "whole").is_file() and (folder / "whole").read_text() == f"{count} {seed}":
        return
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(60, 195, (CLASSES, 6, 6, 3))
    for name in range(CLASSES):
        (folder / "images" / f"class{name}").mkdir(parents=True, exist_ok=True)
    for row in range(count):
        true = row % CLASSES
        told = (true + 1 + row // CLASSES % (CLASSES - 1)) % CLASSES if row // CLASSES % 20 == 0 else true
        pixels = (coarse[true] + draw.normal(0, 40, (6, 6, 3))).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"class{told}" / f"{true}-{row:06}.jpg", quality=85)
    (folder / "whole").write_text(f"{count} {seed}")


def train(given: argparse.Namespace, work: Path) -> None:
    """Train the network on what is in ``work``; in a process of its own."""
    data = load_training_data(str(work / "images"), DataOptions(size=READ_SIDE, workers=given.workers))
    print(*data.notes, sep="\n")
    torch.manual_seed(given.seed)
    model = build_architecture(f"{HERE}:Small", shape=data.shape, n_classes=CLASSES)
    recipe = Recipe(epochs=2, batch_size=128, augment=False, optimiser=Optimiser(name="adamw", lr=3e-3))
    recipe.train(model, data.examples, given.seed, Numerics.for_inputs("cpu", data.shape), Meter())
    torch.save(model.state_dict(), work / "net.pt")


def limited(words: list[str], log: Path) -> dict[str, Any]:
    """Run a command that may take ``LIMIT`` bytes; return exit code, seconds and the most memory it took, in MiB."""
    began = time.perf_counter()
    most: dict[str, int] = {}
    with log.open("w") as said:
        child = subprocess.Popen(
            words, stdout=said, stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
        )  # fmt: skip
        while child.poll() is None:
            try:
                lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            except OSError:
                break
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("RssAnon", "RssFile", "VmData"):
                    most[name] = max(most.get(name, 0), int(value.split()[0]) // 1024)
            time.sleep(0.1)
        code = child.wait()
    seconds = round(time.perf_counter() - began, 1)
    return {"exit": code, "seconds": seconds} | {f"most_{name}_MiB": value for name, value in most.items()}


def large(given: argparse.Namespace, work: Path) -> None:
    """Write, train and find."""
    count = 5_000 if given.quick else 100_000
    began = time.perf_counter()
    write_images(work, count, given.seed)
    size = sum(file.stat().st_size for file in (work / "images").rglob("*.jpg"))
    say(
        given, part="large", step="write", images=count, files_MiB=size // 2**20,
        pixels_MiB=count * 3 * READ_SIDE**2 // 2**20, free_MiB=free_memory() // 2**20,
        seconds=round(time.perf_counter() - began, 1),
    )  # fmt: skip
    common = ["--seed", str(given.seed), "--workers", str(given.workers)]
    words = [sys.executable, str(HERE), "train", "--work", str(work), *common]
    say(given, part="large", step="train", workers=given.workers, **limited(words, work / "train.txt"))
    find(given, work)


def wrong_of(path: Path) -> bool:
    """Whether an image lies in the folder of another class."""
    return path.name[0] != path.parent.name[-1]


def find(given: argparse.Namespace, work: Path) -> None:
    """Look for wrong images in what is in ``work``."""
    common = ["--seed", str(given.seed), "--workers", str(given.workers)]
    listed = work / "suspects.csv"
    for old in work.glob("suspects.*"):
        old.unlink()
    words = [
        sys.executable,
        "-m",
        "expunge",
        "find",
        "--checkpoint",
        str(work / "net.pt"),
        "--arch",
        f"{HERE}:Small",
    ]
    words += ["--data", str(work / "images"), "--size", str(READ_SIDE), "--out", str(listed), *common]
    line = limited(words, work / "find.txt")
    if listed.is_file():
        with listed.open() as file:
            files = [Path(row["name"]) for row in csv.DictReader(file)]
        line |= {
            "listed": len(files),
            "listed_wrong": sum(map(wrong_of, files)),
            "wrong": sum(wrong_of(path) for path in (work / "images").rglob("*.jpg")),
        }
    say(given, part="large", step="find", workers=given.workers, **line)


def say(given: argparse.Namespace, **found: Any) -> None:
    """Print a line and append it to the file."""
    from pretrained import processor

    about = {
        "seed": given.seed, "cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    line = json.dumps(found | about)
    print(line, flush=True)
    with given.out.open("a") as file:
        file.write(line + "\n")


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=("slow", "large", "train", "find"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="of large")
    parser.add_argument("--work", type=Path, help="folder of the files; by default a temporary one")
    parser.add_argument("--out", type=Path, default=Path("reading.jsonl"))
    parser.add_argument(
        "--quick", action="store_true", help="a tenth or less of everything, to try the script"
    )
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    {"slow": slow, "large": large, "train": train, "find": find}[given.part](given, work)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
